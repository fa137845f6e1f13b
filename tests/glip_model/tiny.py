"""A GLIP so small that it runs in milliseconds, with random weights that find something everywhere."""

import numpy as np
import torch
from numpy.typing import NDArray

from glip_model.configuration_glip import GlipConfig
from glip_model.modeling_glip import GlipForDetection
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor
from tests.glip_model.text import small_tokenizer

WORDS = "a cat dog red car two dogs behind"


def tiny_model(last_pixel: bool = False) -> GlipForDetection:
    torch.manual_seed(0)
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = GlipConfig(
        backbone_config={"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)},
        text_config={**text, "vocab_size": 7 + len(WORDS.split())},
        hidden_size=16,
        num_blocks=1,
        num_fusion_heads=2,
        fusion_dim=32,
        prior_probability=0.3,
        boxes_include_last_pixel=last_pixel,
    )
    model = GlipForDetection(config)
    model.eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():  # words and boxes must differ for tests to tell them apart
        model.head.text_projection.weight.mul_(20)
        model.head.text_bias.normal_()
        model.head.box.weight.mul_(20)
        model.head.centerness.weight.mul_(20)
    return model


def seeing_all(last_pixel: bool) -> GlipForDetection:
    """A tiny model in which every cell's box reaches beyond the whole picture."""
    model = tiny_model(last_pixel)
    with torch.no_grad():
        model.head.box.weight.zero_()
        model.head.box.bias.copy_(torch.tensor([0.0, 0.0, 50.0, 50.0]))
    return model


def tiny_processor() -> GlipProcessor:
    size = {"shortest_edge": 64, "longest_edge": 128}
    return GlipProcessor(GlipImageProcessor(size=size), small_tokenizer(WORDS))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
