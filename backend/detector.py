"""The ``Detector`` port on ``glip_model``: records in, tensors between, records out.

torch and transformers take seconds to import: they come with the weights, so that the service answers before.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from backend.domain.geometry import Box
from backend.domain.records import Picture, Proposal, Query, Sentence
from backend.errors import ModelError, UsageError
from backend.model_folders import model_version
from glip_model.caption import Caption
from glip_model.sentence import CaptionError, GroundedSentence

if TYPE_CHECKING:
    from glip_model.inference import GlipDetector, ImageDetections


class GlipModelDetector:
    """A model folder, loaded once on first use; one inference at a time, whatever number of threads asks.

    Attributes:
        state: ``idle``, ``loading``, ``ready`` or ``failed``.
    """

    def __init__(self, folder: Path, version_cache: Path, device: str | None = None) -> None:
        self._folder = folder
        self._version_cache = version_cache
        self._device = device
        self._lane = Lock()
        self._loaded: GlipDetector | None = None
        self.state = "idle"

    @property
    def version(self) -> str:
        """Name and digest of the weights; reads the files' sizes and times only, unless they are new.

        Raises:
            ModelError: the folder cannot be read.
        """
        return model_version(self._folder, self._version_cache)

    def load(self) -> None:
        """Load the weights now, if they are not loaded yet.

        Raises:
            ModelError: they cannot be used.
        """
        with self._lane:
            self._model()

    def detect(
        self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
    ) -> list[list[Proposal]]:
        """As ``ports.Detector``."""
        images = [
            np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3) for picture in pictures
        ]
        with self._lane:
            model = self._model()
            from glip_model.inference import ModelOutputError

            try:
                captions, names = _captions(model, query)
                found = model.detect(images, captions, score_threshold)
            except CaptionError as error:
                raise UsageError(str(error)) from error
            except ModelOutputError as error:
                raise ModelError(f"model {self._folder.name}: {error}") from error
        return [_proposals(each, names) for each in found]

    def _model(self) -> "GlipDetector":
        if self._loaded is None:
            self.state = "loading"
            try:
                self._loaded = _load(self._folder, self._device)
            finally:
                self.state = "failed" if self._loaded is None else "ready"
        return self._loaded


def _load(folder: Path, device: str | None) -> "GlipDetector":
    import torch

    from glip_model.inference import GlipDetector
    from glip_model.loading import ModelFolderError

    try:
        chosen = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"no device {device!r}: set GLIP_LABEL_DEVICE to cpu or cuda") from error
    try:
        return GlipDetector.from_folder(folder, chosen)
    except ModelFolderError as error:
        raise ModelError(str(error)) from error


def _captions(model: "GlipDetector", query: Query) -> tuple[Sequence[Caption], list[str]]:
    """The captions to look for, and the names that the labels found in them stand for."""
    if not isinstance(query, Sentence):
        return model.captions([label.asked for label in query]), [label.name for label in query]
    names = list(dict.fromkeys(span.label for span in query.spans))
    sentence = GroundedSentence(query.text, tuple((span.start, span.end) for span in query.spans))
    return model.sentence_captions(sentence, [names.index(span.label) for span in query.spans]), names


def _proposals(found: "ImageDetections", names: Sequence[str]) -> list[Proposal]:
    boxes = [Box(*corners) for corners in found.boxes_xyxy.tolist()]
    rows = zip(boxes, found.labels.tolist(), found.scores.tolist(), found.prompts, strict=True)
    return [Proposal(box, names[label], score, prompt) for box, label, score, prompt in rows if box.area > 0]
