"""The recipe of the bundled glip-nano: what is built, and how its weights are moved.

Every number of the recipe is in this module, in ``batches`` and in ``training.augment``.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from glip_model.configuration_glip import GlipConfig
from glip_model.modeling_glip import GlipForDetection
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor
from glip_model.training.optimisation import cosine_decay

INPUT_SIZE = {"shortest_edge": 416, "longest_edge": 512}
"""How large glip-nano sees pictures."""

DEFAULT_SETS = {"blood_cells": 1.0, "aquarium": 1.6, "cards": 1.6, "microcontrollers": 0.8}
"""Real sets by folder name, and how often each is drawn relative to the others."""


@dataclass(frozen=True)
class Schedule:
    """How the weights are moved.

    Attributes:
        peak_lr: learning rate after the warm-up; it then falls to ``last_share`` of itself along a cosine.
        warm_up_steps: steps of linear rise.
        weight_decay: of matrices and kernels; biases, norms and scales have none.
        gradient_clip: largest L2 norm of the whole gradient.
        ema_decay: of the averaged weights that are saved in the end.
        word_weight: of the word head's loss beside GLIP's own.
    """

    peak_lr: float = 1e-3
    last_share: float = 0.01
    warm_up_steps: int = 250
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    word_weight: float = 0.5

    def learning_rate(self, step: int, progress: float) -> float:
        """The rate at a step; ``progress`` in 0..1 is the share of the budget that is used up."""
        return self.peak_lr * min(1.0, (step + 1) / self.warm_up_steps) * cosine_decay(progress, self.last_share)


def nano_config(vocab_size: int, early_fusion: bool = True) -> GlipConfig:
    """The configuration of glip-nano; ``early_fusion=False`` is the layout of GLIP-T (A), for comparison."""
    return GlipConfig(
        backbone_config={
            "model_type": "resnet",
            "layer_type": "basic",
            "embedding_size": 48,
            "hidden_sizes": [48, 96, 192, 384],
            "depths": [2, 2, 2, 2],
            "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "max_position_embeddings": 256,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        hidden_size=64,
        num_blocks=2,
        early_fusion=early_fusion,
        num_fusion_heads=4,
        fusion_dim=256,
        fusion_dropout=0.0,
        drop_block_rate=0.0,
        boxes_include_last_pixel=False,
    )


def save_model(folder: Path, config: GlipConfig, state: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model folder: weights in half precision, configuration, tokenizer and processor."""
    model = GlipForDetection(config)
    model.load_state_dict(state)
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    GlipProcessor(GlipImageProcessor(size=INPUT_SIZE), tokenizer).save_pretrained(folder)
