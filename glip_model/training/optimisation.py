"""How weights are moved, in pre-training and in fine-tuning alike."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: kernels with decay; biases, norms and scales without.

    Biases keep the rate of the rest. The official fine-tuning doubles it (SPEC 10); a run from chance that did so ended
    with half of the image encoder's last activations at exactly 0. Whether the doubling was the cause is not known.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def cosine_decay(progress: float, last_share: float) -> float:
    """Share of the peak rate: from 1 down to ``last_share``, half a cosine over ``progress`` in 0..1 (SGDR, eq. 5)."""
    return last_share + (1 - last_share) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class AveragedWeights:
    """Exponential moving average of a model's whole state; early averages forget faster, so that they keep up."""

    def __init__(self, state: dict[str, Tensor], decay: float, updates: int = 0) -> None:
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.decay = decay
        self.updates = updates

    @torch.no_grad()
    def update(self, state: dict[str, Tensor]) -> None:
        """Move towards the model's state of now; whole numbers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, mean in self.state.items():
            if mean.is_floating_point():
                mean.lerp_(state[name], 1 - decay)
            else:
                mean.copy_(state[name])


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor that holds NaN or infinity, for the error message."""
    return next((name for name, tensor in named if not tensor.isfinite().all()), None)
