"""The ``Trainer`` port on ``glip_model``: frozen data in, examples between, an adapter or a model out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

import glip_model.finetune as finetuning
from backend.domain.learning import (
    FrozenData,
    LabelledBox,
    Mode,
    Part,
    ReviewedImage,
    TrainingProgress,
    TrainingRequest,
)
from backend.errors import ImageError, ModelError, TrainingError
from backend.ports import Images
from glip_model.finetune import TrainingExample
from glip_model.loading import ModelFolderError
from glip_model.sentence import CaptionError

_MODES: Mapping[Mode, Literal["prompt", "head", "full"]] = {
    Mode.PROMPT: "prompt",
    Mode.HEAD: "head",
    Mode.FULL: "full",
}


class GlipTrainer:
    """Fine-tunes the model in a folder.

    Args:
        base: the model's folder.
        images: gives pictures by their SHA-256.
        device: torch device to train on; None for a GPU where there is one.
    """

    def __init__(self, base: Path, images: Images, device: str | None = None) -> None:
        self._base = base
        self._images = images
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def train(
        self, data: FrozenData, request: TrainingRequest, folder: Path, progress: Callable[[TrainingProgress], None]
    ) -> Mode:
        """As ``ports.learning.Trainer``."""
        numbers = {name: number for number, (name, _) in enumerate(data.labels)}
        examples = [self._example(image, numbers) for image in data.part(Part.TRAIN)]
        mode = None if request.mode is None else _MODES[request.mode]
        settings = finetuning.default_settings(examples, self._device, mode)
        settings = replace(settings, seed=request.seed, minutes=request.minutes or settings.minutes)
        try:
            finetuning.finetune(
                self._base,
                [words for _, words in data.labels],
                examples,
                settings,
                folder,
                lambda told: progress(_progress(told)),
            )
        except (finetuning.TrainingError, CaptionError) as error:
            raise TrainingError(str(error)) from error
        except ModelFolderError as error:
            raise ModelError(str(error)) from error
        return Mode(settings.mode)

    def _example(self, image: ReviewedImage, numbers: dict[str, int]) -> TrainingExample:
        return TrainingExample(
            image=partial(self._pixels, image),
            boxes_xyxy=_corners(image.boxes),
            labels=tuple(numbers[each.label] for each in image.boxes),
            rejected_xyxy=_corners(image.rejected),
            rejected_labels=tuple(numbers[each.label] for each in image.rejected),
        )

    def _pixels(self, image: ReviewedImage) -> NDArray[np.uint8]:
        picture = self._images.fetch(image.sha256)
        if (picture.width, picture.height) != (image.width, image.height):
            raise ImageError(f"{picture.source}: is {picture.width} x {picture.height}, not as it was annotated")
        return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)


def _corners(boxes: Sequence[LabelledBox]) -> NDArray[np.float32]:
    corners = [(each.box.x1, each.box.y1, each.box.x2, each.box.y2) for each in boxes]
    return np.array(corners, np.float32).reshape(-1, 4)


def _progress(told: finetuning.Progress) -> TrainingProgress:
    return TrainingProgress(
        "train", told.step, told.steps, int(told.epoch) + 1, None, told.loss, told.remaining_seconds
    )
