"""The ``Trainer`` port on ``glip_model``: frozen data in, examples between, an adapter or a model out."""

import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

import glip_model.finetune as finetuning
from backend.device import find_device
from backend.domain.geometry import Box
from backend.domain.learning import Mode, TrainingProgress, TrainingRequest
from backend.domain.records import names_sides
from backend.domain.training_data import FrozenData, Part, PseudoImage, ReviewedImage
from backend.errors import ImageError, ModelError, StorageError, TrainingError
from backend.ports import Images
from glip_model.finetune import TrainingExample
from glip_model.loading import ModelFolderError
from glip_model.sentence import CaptionError

log = logging.getLogger("glip_label.training")

_MODES: Mapping[Mode, Literal["prompt", "head", "full"]] = {
    Mode.PROMPT: "prompt",
    Mode.HEAD: "head",
    Mode.FULL: "full",
}
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)
PSEUDO_WEIGHT = 0.5  # of a picture that a model labelled, beside 1 for one that a person did


class GlipTrainer:
    """Fine-tunes the model in a folder.

    Args:
        base: the model's folder.
        images: gives pictures by their SHA-256.
        device: torch device to train on; None for a GPU where there is one.
        minutes: of a training that asks for no other time, at most; 0 for what suits the device.

    Raises:
        ModelError: there is no such device.
    """

    def __init__(self, base: Path, images: Images, device: str | None = None, minutes: float = 0.0) -> None:
        self._base = base
        self._images = images
        self._minutes = minutes
        self._device = find_device(device)

    def train(
        self,
        data: FrozenData,
        request: TrainingRequest,
        start: Path | None,
        folder: Path,
        progress: Callable[[TrainingProgress], None],
    ) -> Mode:
        """As ``ports.learning.Trainer``."""
        examples = training_examples(data, self._images)
        mode = None if request.mode is None else _MODES[request.mode]
        settings = finetuning.default_settings(examples, self._device, mode, further=start is not None)
        base = start if start is not None and settings.mode == "full" else self._base
        minutes = request.minutes or self._minutes or settings.minutes
        sided = names_sides(word for name, words in data.labels for word in (name, *words))
        handling = replace(settings.handling, mirror=not sided)
        settings = replace(settings, seed=request.seed, minutes=minutes, frozen=request.frozen, handling=handling)
        run = partial(
            finetuning.finetune,
            base,
            [words for _, words in data.labels],
            examples,
            settings,
            folder,
            lambda told: progress(_progress(told)),
        )
        try:
            _run(run, folder)
        except (finetuning.TrainingError, CaptionError) as error:
            raise TrainingError(str(error)) from error
        except ModelFolderError as error:
            raise ModelError(str(error)) from error
        except torch.OutOfMemoryError as error:
            less = "--mode head or prompt, " if settings.mode == "full" else ""
            raise TrainingError(
                f"{self._device} has too little memory to train {base.name} in mode {settings.mode}: take {less}a "
                "smaller model (GLIP_LABEL_MODEL) or another device (GLIP_LABEL_DEVICE)"
            ) from error
        except Exception as error:  # the tokenizers' library has no other for a file that it cannot write
            reason = _unwritable(error)
            if reason is None:
                raise
            raise StorageError(
                f"{folder}: cannot be written ({reason}): make room, or mend the disk or the folder's permissions; "
                "training goes on where it was"
            ) from error
        return Mode(settings.mode)


def _run(run: Callable[[], None], folder: Path) -> None:
    """Train; anew where the job's checkpoint is of another run or damaged, which nobody but this could throw away."""
    try:
        run()
    except finetuning.OtherRunError:
        log.warning(
            "%s: damaged, or of other settings or another base, as before an upgrade: training begins anew",
            folder / finetuning.CHECKPOINT,
        )
        shutil.rmtree(folder)
        run()


def _unwritable(error: BaseException | None) -> str | None:
    """What the system said where it could not write, which torch and the libraries in Rust tell each in its way."""
    while error is not None:
        in_rust = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(in_rust[1]) if in_rust else None
        if number in _UNWRITABLE:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def training_examples(data: FrozenData, images: Images) -> list[TrainingExample]:
    """Bring what is to be learnt from into the trainer's words: what people left, then what a model is sure of.

    Pictures are fetched from ``images`` only when their pixels are asked for.
    """
    numbers = {name: number for number, (name, _) in enumerate(data.labels)}
    reviewed = [
        TrainingExample(
            image=partial(_pixels, image, images),
            boxes_xyxy=_corners([each.box for each in image.boxes]),
            labels=tuple(numbers[each.label] for each in image.boxes),
            rejected_xyxy=_corners([each.box for each in image.rejected]),
            rejected_labels=tuple(numbers[each.label] for each in image.rejected),
            unreviewed_xyxy=_corners(image.doubtful),
            unasked=tuple(numbers[name] for name in image.unasked),
        )
        for image in data.part(Part.TRAIN)
    ]
    pseudo = [
        TrainingExample(
            image=partial(_pixels, image, images),
            boxes_xyxy=_corners([each.box for each in image.boxes]),
            labels=tuple(numbers[each.label] for each in image.boxes),
            unreviewed_xyxy=_corners(image.doubtful),
            weight=PSEUDO_WEIGHT,
        )
        for image in data.pseudo
    ]
    return reviewed + pseudo


def _pixels(image: ReviewedImage | PseudoImage, images: Images) -> NDArray[np.uint8]:
    picture = images.fetch(image.sha256)
    if (picture.width, picture.height) != (image.width, image.height):
        raise ImageError(f"{picture.source}: is {picture.width} x {picture.height}, not as it was annotated")
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)


def _corners(boxes: Sequence[Box]) -> NDArray[np.float32]:
    return np.array([astuple(box) for box in boxes], np.float32).reshape(-1, 4)


def _progress(told: finetuning.Progress) -> TrainingProgress:
    return TrainingProgress("train", told.step, told.steps, int(told.epoch) + 1, told.loss, told.remaining_seconds)
