"""How a run of fine-tuning is asked for, and how each mode moves its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from glip_model.finetuning.examples import TrainingExample
from glip_model.training.samples import Handling

Mode = Literal["prompt", "head", "full"]

_FEW = 5
"""Pictures with boxes from which the whole model may learn."""

_MOST_STEPS = 2400
"""Of the whole model. With half as many 220 pictures of playing cards taught it less than 100 of them."""


class TrainingError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


class OtherRunError(TrainingError):
    """The folder holds the checkpoint of another run, or a damaged one."""


@dataclass(frozen=True)
class FinetuneSettings:
    """One run. It may go on with other ``minutes``, ``checkpoint_seconds`` and ``device``, as on another machine.

    Attributes:
        mode: what learns.
        steps: length of the run.
        minutes: ends the run earlier, the fall of the learning rate included; what comes out then depends on the
            machine too. Writing checkpoints counts, reading the base does not. A run that goes on has spent those of
            before; with none left it ends at once.
        batch_size: views a step.
        seed: of the views' order and augmentation.
        learning_rate: after the warm-up; None for what the mode and the width of the model ask for.
        frozen: in mode "full" the parts that stay as they are, as prefixes of parameter names: ``("text_encoder",)``.
        handling: what augmentation may do.
        checkpoint_seconds: time between checkpoints, longer where it takes long to write one; 0 for one at each step.
        device: torch device to train on; None for a GPU where there is one.
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
    device: str | None = None


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
    """How a mode's parts are moved: the official fine-tuning's rates, which are for 256 channels.

    Attributes:
        learning_rate: after the warm-up.
        weight_decay: of kernels and of offsets.
        scaled: narrower models move faster.
        text_share: rate of a text encoder as wide as BERT's, relative to the rest; a small one moves like the rest.
    """

    learning_rate: float
    weight_decay: float
    scaled: bool = True
    text_share: float = 1.0

    def rate(self, channels: int) -> float:
        """The learning rate of a model with so many channels in its tower; glip-nano's 64 took 8 times as much well."""
        return self.learning_rate * (256 / channels) ** 1.5 if self.scaled else self.learning_rate


RECIPES: Mapping[Mode, Recipe] = {
    "prompt": Recipe(0.05, 0.25, scaled=False),
    "head": Recipe(1e-3, 0.05),
    "full": Recipe(1e-4, 0.05, text_share=0.1),
}


def default_settings(
    examples: Sequence[TrainingExample], device: torch.device, mode: Mode | None = None, *, further: bool = False
) -> FinetuneSettings:
    """What is safe for this much data on this device.

    Few pictures teach prompts, which cannot spoil the base; more of them the whole model, for a time that grows with
    their number, and more slowly where the run goes ``further`` from a model that learned most of them already. On a
    CPU a run lasts 20 minutes at most, whatever the size of the model.
    """
    filled = sum(len(example.boxes_xyxy) > 0 for example in examples)
    if mode is None:
        mode = "prompt" if filled < _FEW else "full"
    full = 200 + 3 * filled if further else 400 + 12 * filled
    steps = {"prompt": 150, "head": 300, "full": min(_MOST_STEPS, full)}[mode]
    return FinetuneSettings(mode, steps, minutes=20.0 if device.type == "cpu" else None, device=str(device))
