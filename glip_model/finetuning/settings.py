"""How a run of fine-tuning is asked for, and how each mode moves its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from glip_model.finetuning.examples import TrainingExample
from glip_model.training.samples import Handling

Mode = Literal["prompt", "head", "full"]


class TrainingError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class FinetuneSettings:
    """One run.

    Attributes:
        mode: what learns.
        steps: length of the run.
        minutes: ends the run earlier, the fall of the learning rate included; what comes out then depends on the
            machine too.
        batch_size: views a step.
        seed: of the views' order and augmentation.
        learning_rate: after the warm-up; None for what the mode and the width of the model ask for.
        frozen: in mode "full" the parts that stay as they are, as prefixes of parameter names: ``("text_encoder",)``.
        handling: what augmentation may do.
        checkpoint_seconds: time between checkpoints.
    """

    mode: Mode
    steps: int
    minutes: float | None = None
    batch_size: int = 8
    seed: int = 0
    learning_rate: float | None = None
    frozen: tuple[str, ...] = ()
    handling: Handling = field(default_factory=Handling)
    checkpoint_seconds: float = 30.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done and in all, rounds through the data, loss of the last step, seconds."""

    step: int
    steps: int
    epoch: float
    loss: float
    seconds: float
    remaining_seconds: float


@dataclass(frozen=True)
class Recipe:
    """How a mode's parts are moved.

    The official fine-tuning's rates are for 256 channels; narrower models want more, in proportion.
    """

    learning_rate: float
    weight_decay: float
    scaled: bool
    text_share: float = 1.0


RECIPES: Mapping[Mode, Recipe] = {
    "prompt": Recipe(0.05, 0.25, scaled=False),
    "head": Recipe(1e-3, 0.05, scaled=True),
    "full": Recipe(1e-4, 0.05, scaled=True, text_share=0.1),
}


def default_settings(
    examples: Sequence[TrainingExample], device: torch.device, mode: Mode | None = None
) -> FinetuneSettings:
    """What is safe for this much data on this device.

    Few pictures teach prompts, which cannot spoil the base; more of them the whole model, for a time that grows with
    their number.
    """
    filled = sum(len(example.boxes_xyxy) > 0 for example in examples)
    if mode is None:
        mode = "prompt" if filled < 20 else "full"
    steps = {"prompt": 200, "head": 600, "full": min(2000, 200 + 4 * filled)}[mode]
    return FinetuneSettings(mode, steps)
