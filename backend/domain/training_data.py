"""What a training job learns from and is judged by, frozen: images as people left them, and the parts they are for."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from backend.domain.geometry import Box

_TRAIN, _TUNE = 0.70, 0.85  # up to where each part reaches; the gate has the rest


class Part(StrEnum):
    """What an image is for: to learn from, or to judge with what was learnt.

    ``TUNE`` and ``GATE`` are held out: the gate reads scores and judges on both, each image by what others tell.
    """

    TRAIN = "train"
    TUNE = "tune"
    GATE = "gate"


def split_of(digest: str) -> Part:
    """The part of an image with this SHA-256 (hex): 70, 15 and 15 percent by its leading 32 bits.

    It depends on the image's content alone: what was held out once stays held out, and so do its copies.
    """
    drawn = int(digest[:8], 16) / 2**32
    return Part.TRAIN if drawn < _TRAIN else Part.TUNE if drawn < _TUNE else Part.GATE


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box in pixels of the upright image, and its label's name."""

    box: Box
    label: str


@dataclass(frozen=True, slots=True)
class ReviewedImage:
    """An image as people left it.

    Attributes:
        sha256: hex digest of its file, which is also how the file is found.
        width, height: of the upright image.
        annotations: the annotations' versions that tell of it: Label Studio's id and time (ISO 8601, UTC).
        boxes: all objects; none where a reviewer found nothing.
        rejected: boxes that were proposed and deleted, and that no box of the same label covers now.
        unasked: labels that were added after it was reviewed: nobody knows whether there are such objects.
        doubtful: where something was drawn without a label that is known: nobody knows what it is.
    """

    sha256: str
    width: int
    height: int
    annotations: tuple[tuple[int, str], ...] = ()
    boxes: tuple[LabelledBox, ...] = ()
    rejected: tuple[LabelledBox, ...] = ()
    unasked: tuple[str, ...] = ()
    doubtful: tuple[Box, ...] = ()

    @property
    def part(self) -> Part:
        return split_of(self.sha256)


@dataclass(frozen=True, slots=True)
class PseudoImage:
    """An image of the part ``train`` that nobody reviewed, as a model sees it.

    Attributes:
        sha256, width, height: as of a `ReviewedImage`.
        teacher: name of the model version whose boxes these are.
        boxes: what it is sure of.
        doubtful: where there may be more.
    """

    sha256: str
    width: int
    height: int
    teacher: str
    boxes: tuple[LabelledBox, ...]
    doubtful: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class FrozenData:
    """What one job learns from and is judged by; whatever order images are given in, they come in one.

    Attributes:
        labels: (name, words it is asked with) in asking order.
        images: what people said.
        pseudo: what a model says of other images; only to learn from.
        start: name of the version whose weights mode "full" goes on from; None for those of the base.
        base: name of the base model that they were gathered for.
        left_out: how many images were left out, by reason.
        seen: number of the newest version of an annotation that was known when they were gathered.
    """

    labels: tuple[tuple[str, tuple[str, ...]], ...]
    images: tuple[ReviewedImage, ...]
    pseudo: tuple[PseudoImage, ...] = ()
    start: str | None = None
    base: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    seen: int = 0

    def __post_init__(self) -> None:
        # A resumed training must see them as the first attempt did, which did not read them from where they are kept.
        object.__setattr__(self, "images", tuple(sorted(self.images, key=lambda each: (each.sha256, each.annotations))))
        object.__setattr__(self, "pseudo", tuple(sorted(self.pseudo, key=lambda each: each.sha256)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of labels, images, annotation versions and boxes, and of where learning starts."""
        return sha256(replace(self, base="", left_out={}, seen=0).to_json().encode()).hexdigest()

    @property
    def learnt(self) -> int:
        """How many annotations tell of the images."""
        return len({number for image in self.images for number, _ in image.annotations})

    def part(self, part: Part) -> tuple[ReviewedImage, ...]:
        """The reviewed images of one part, in their order."""
        return tuple(image for image in self.images if image.part is part)

    def to_json(self) -> str:
        """Write it as JSON; equal data gives equal text."""
        # What is not there leaves no trace: such data keep the text, and so the fingerprint, of before there was any.
        fields: dict[str, Any] = {"labels": self.labels, "images": [_to_json(image) for image in self.images]}
        if self.pseudo:
            fields["pseudo"] = [asdict(image) for image in self.pseudo]
        if self.start is not None:
            fields["start"] = self.start
        if self.base:
            fields["base"] = self.base
        if self.left_out:
            fields["left_out"] = dict(self.left_out)
        if self.seen:
            fields["seen"] = self.seen
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "FrozenData":
        """Read what ``to_json`` wrote."""
        fields = json.loads(text)
        labels = tuple((name, tuple(words)) for name, words in fields["labels"])
        images = tuple(_reviewed(image) for image in fields["images"])
        pseudo = tuple(_pseudo(image) for image in fields.get("pseudo", ()))
        told = fields.get("start"), fields.get("base", ""), fields.get("left_out", {}), fields.get("seen", 0)
        return cls(labels, images, pseudo, *told)


def _to_json(image: ReviewedImage) -> dict[str, Any]:
    fields = asdict(image)
    return {name: value for name, value in fields.items() if value or name not in ("unasked", "doubtful")}


def _reviewed(fields: Mapping[str, Any]) -> ReviewedImage:
    annotations = tuple((number, moment) for number, moment in fields["annotations"])
    boxes, rejected = _boxes(fields["boxes"]), _boxes(fields["rejected"])
    given = {"annotations": annotations, "boxes": boxes, "rejected": rejected}
    unasked, doubtful = tuple(fields.get("unasked", ())), _places(fields.get("doubtful", ()))
    return ReviewedImage(**{**fields, **given, "unasked": unasked, "doubtful": doubtful})


def _pseudo(fields: Mapping[str, Any]) -> PseudoImage:
    return PseudoImage(**{**fields, "boxes": _boxes(fields["boxes"]), "doubtful": _places(fields["doubtful"])})


def _places(rows: Iterable[Mapping[str, Any]]) -> tuple[Box, ...]:
    return tuple(Box(**row) for row in rows)


def _boxes(rows: Iterable[Mapping[str, Any]]) -> tuple[LabelledBox, ...]:
    return tuple(LabelledBox(Box(**row["box"]), row["label"]) for row in rows)
