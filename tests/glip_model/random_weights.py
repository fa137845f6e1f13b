"""Weights that make every part matter: no zero offsets, no zero biases, no equal norms."""

from typing import Any

import torch
from torch import nn

from glip_model.configuration_glip import GlipConfig
from glip_model.modeling_glip import GlipForDetection


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> None:
    """Fill all parameters: matrices of unit gain, norms and scales around one, biases around zero."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if name.endswith("offset.bias"):
            parameter.copy_(noise)
        elif parameter.dim() > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        elif name.endswith(("weight", "scale", "scales")):
            parameter.copy_(1 + 0.1 * noise)
        else:
            parameter.copy_(0.1 * noise)


def random_model(early_fusion: bool = True, seed: int = 0, **fields: Any) -> GlipForDetection:
    """A small GLIP with window 4 and random weights, in evaluation mode; no dropout if put to training."""
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    swin = {"embed_dim": 8, "depths": (1, 2, 2, 2), "num_heads": (1, 2, 2, 4), "window_size": 4, "drop_path_rate": 0.0}
    config = GlipConfig(
        backbone_config=swin,
        text_config={**text, **dropout, "vocab_size": 50},
        early_fusion=early_fusion,
        fusion_dropout=0.0,
        drop_block_rate=0.0,
        group_norm_groups=8,
        **{"hidden_size": 16, "num_blocks": 2, "num_fusion_heads": 2, "fusion_dim": 32, **fields},
    )
    model = GlipForDetection(config)
    randomise(model, seed)
    with torch.no_grad():
        model.head.text_projection.weight.mul_(20)  # words must differ for tests to tell them apart
    model.train(False)
    return model


def random_pixels(batch: int, height: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
