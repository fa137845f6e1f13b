"""The ``Detector`` port on ``glip_model``: records in, tensors between, records out.

torch and transformers take seconds to import: they come with the weights, so that the service answers before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from backend.device import find_device
from backend.domain.geometry import Box
from backend.domain.records import Picture, Proposal, Query, Sentence, names_sides
from backend.errors import ModelError, UsageError
from backend.model_folders import model_version
from glip_model.caption import Caption
from glip_model.sentence import CaptionError, GroundedSentence

if TYPE_CHECKING:
    from glip_model.inference import GlipDetector, ImageDetections


_SAME_PLACE_IOU = 0.7
"""Overlap from which on two boxes are one object: of different names for it the best one is proposed."""
_VOTING_POWER = 8.0
"""Of scores as votes on where a box lies: one of 0.9 times the best score counts 0.43, of half of it nearly nothing."""


class GlipModelDetector:
    """A model folder, loaded once on first use; one inference at a time, whatever number of threads asks.

    Attributes:
        folder: the model's.
        overlapping_labels: whether an object may be proposed under several names.
        box_voting: whether boxes that agree on an object vote on where it lies.
        mirrored: whether pictures are looked at in the mirror, too, where left and right do not matter.
        lane: held while this model, or one that shares its weights, works.
        state: ``idle``, ``loading``, ``ready`` or ``failed``.
    """

    def __init__(
        self,
        folder: Path,
        version_cache: Path,
        device: str | None = None,
        *,
        overlapping_labels: bool = False,
        box_voting: bool = True,
        mirrored: bool = True,
    ) -> None:
        self.folder = folder
        self.overlapping_labels = overlapping_labels
        self.box_voting = box_voting
        self.mirrored = mirrored
        self.lane = Lock()
        self._version_cache = version_cache
        self._device = device
        self._loaded: GlipDetector | None = None
        self._loaded_version: str | None = None
        self.state = "idle"

    @property
    def version(self) -> str:
        """Name and digest of the weights; reads the files' sizes and times only, unless they are new.

        Once loaded, it is that of the weights in memory, whatever becomes of the folder.

        Raises:
            ModelError: the folder cannot be read.
        """
        return self._loaded_version or model_version(self.folder, self._version_cache)

    def load(self) -> None:
        """Load the weights now, if they are not loaded yet.

        Raises:
            ModelError: they cannot be used.
        """
        with self.lane:
            self.model()

    def detect(
        self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
    ) -> list[list[Proposal]]:
        """As ``ports.Detector``."""
        with self.lane:
            model = self.model()
            return self.look(model, self.folder.name, pictures, query, score_threshold)

    def look(
        self, model: "GlipDetector", name: str, pictures: Sequence[Picture], query: Query, score_threshold: float
    ) -> list[list[Proposal]]:
        """Detect with this model, or with one that was made of it; only for who holds the lane."""
        found, names = _detect(model, name, pictures, query, score_threshold, mirrored=self.mirrored)
        # The phrases of a sentence may well mean the same thing twice.
        if not self.overlapping_labels and not isinstance(query, Sentence):
            found = [_one_name_per_place(each) for each in found]
        return [_proposals(each, names) for each in found]

    def model(self) -> "GlipDetector":
        """Give the model, loaded if it is not yet; only for who holds the lane.

        Raises:
            ModelError: it cannot be used.
        """
        if self._loaded is None:
            self.state = "loading"
            try:
                version = self.version
                self._loaded = self.load_folder(self.folder)
                self._loaded_version = version
            finally:
                self.state = "failed" if self._loaded is None else "ready"
        return self._loaded

    def load_folder(self, folder: Path) -> "GlipDetector":
        """Load another model folder onto the same device.

        Raises:
            ModelError: it cannot be used.
        """
        return _load(folder, self._device, box_voting=self.box_voting)


class VersionDetector:
    """What fine-tuning a model made of it, loaded on first use: an adapter on its weights, or a whole model.

    Args:
        base: the model; its weights are loaded once for all adapters, and it works with one of them at a time.
        version: name of the version.
        folder: finds its folder.
    """

    def __init__(self, base: GlipModelDetector, version: str, folder: Callable[[], Path]) -> None:
        self.version = version
        self._base = base
        self._folder = folder
        self._loaded: GlipDetector | None = None

    def detect(
        self, pictures: Sequence[Picture], query: Query, *, score_threshold: float = 0.05
    ) -> list[list[Proposal]]:
        """As ``ports.Detector``."""
        with self._base.lane:
            if self._loaded is None:
                self._loaded = self._load(self._folder())
            return self._base.look(self._loaded, self.version, pictures, query, score_threshold)

    def _load(self, folder: Path) -> "GlipDetector":
        from glip_model.adapters import AdapterError, is_adapter, load_adapter

        if not is_adapter(folder):
            return self._base.load_folder(folder)
        model = self._base.model()
        try:
            return model.adapted(load_adapter(folder, self._base.folder, model.device))
        except AdapterError as error:
            raise ModelError(str(error)) from error


def _detect(
    model: "GlipDetector",
    name: str,
    pictures: Sequence[Picture],
    query: Query,
    score_threshold: float,
    *,
    mirrored: bool,
) -> tuple[list["ImageDetections"], list[str]]:
    """What is found in each picture, and the names that its labels stand for."""
    from glip_model.mirrored import detect_both_ways
    from glip_model.processing_glip import ModelOutputError

    images = [np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3) for picture in pictures]
    try:
        captions, names = _captions(model, query)
        with _enough_memory(name):
            if mirrored and not _sides_matter(query):
                return detect_both_ways(model, images, captions, score_threshold), names
            return model.detect(images, captions, score_threshold), names
    except CaptionError as error:
        raise UsageError(str(error)) from error
    except ModelOutputError as error:
        raise ModelError(f"model {name}: {error}") from error


def _sides_matter(query: Query) -> bool:
    if isinstance(query, Sentence):
        return True
    return names_sides(words for label in query for words in (label.name, *label.prompts))


def _one_name_per_place(found: "ImageDetections") -> "ImageDetections":
    """Drop what overlaps something better, whatever its name: the model is of two minds about one object.

    The official network suppresses within each label alone, which AP rewards and people pay for.
    """
    from glip_model.box_ops import nms
    from glip_model.inference import ImageDetections

    kept = nms(found.boxes_xyxy, found.scores, found.labels.new_zeros(len(found.labels)), _SAME_PLACE_IOU)
    prompts = tuple(found.prompts[index] for index in kept.tolist())
    return ImageDetections(found.boxes_xyxy[kept], found.scores[kept], found.labels[kept], prompts)


def _load(folder: Path, device: str | None, *, box_voting: bool) -> "GlipDetector":
    from glip_model.inference import GlipDetector
    from glip_model.loading import ModelFolderError
    from glip_model.postprocess import PostprocessSettings

    settings = PostprocessSettings(voting_power=_VOTING_POWER if box_voting else None)
    try:
        with _enough_memory(folder.name):
            return GlipDetector.from_folder(folder, find_device(device), settings)
    except ModelFolderError as error:
        raise ModelError(str(error)) from error


@contextmanager
def _enough_memory(name: str) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:  # of a GPU, which others may use too
        raise ModelError(
            f"model {name}: the GPU has too little memory left: take a smaller model (GLIP_LABEL_MODEL) or another "
            "device (GLIP_LABEL_DEVICE)"
        ) from error


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
