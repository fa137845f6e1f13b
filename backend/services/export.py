"""Settle what a data set says about each image, and count what it leaves out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from backend.domain.annotations import AnnotatedRegion
from backend.domain.dataset import (
    AnnotatedImage,
    AttributedAnnotation,
    DatasetBox,
    DatasetImage,
    DatasetLabel,
    ImageFile,
    ImageState,
    Provenance,
    ScoredBox,
    is_inside,
    on_grid,
    outline_in_image,
)
from backend.domain.file_names import shown_reference
from backend.domain.geometry import percent_to_pixels
from backend.domain.policies import AnnotatorPolicy, Settled, Splits, settle
from backend.errors import ImageError, UsageError
from backend.ports import AnnotatedImages
from backend.services.file_names import FileNames


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Which images and boxes are wanted; None and empty leave everything in.

    Attributes:
        policy: whose annotation counts where an image has several.
        labels: names of the wanted labels; images stay, also where none of their boxes does.
        renamed: (old, new) names of labels: boxes of the old one become boxes of the new one.
        annotators: whose annotations are looked at (Label Studio's user ids).
        since, until: annotations of that time are looked at (last changed at ``since`` or later, before ``until``).
        splits: how to divide the images.
        parts: names of the wanted parts.
        include_unreviewed: also images that no one annotated, marked as such.
        predictions: model version whose proposals go along.
    """

    policy: AnnotatorPolicy = AnnotatorPolicy.GROUND_TRUTH
    labels: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = ()
    annotators: frozenset[int] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    splits: Splits | None = None
    parts: frozenset[str] = frozenset()
    include_unreviewed: bool = False
    predictions: str | None = None


@dataclass(slots=True)
class Tally:
    """What was left out and why, what was clipped, and which images could not be had, in one line each."""

    images: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    failures: list[str] = field(default_factory=list)


class Export:
    """One pass over a project's images.

    Args:
        source: the project.
        request: what is wanted.
        read: gets an image's file, for images that are copied, or whose size or (for parts) content is not known yet.
        copy: whether the files are wanted along with the images.

    Raises:
        UsageError: a wanted label or part is not there, or the label is one that is renamed.
    """

    def __init__(
        self,
        source: AnnotatedImages,
        request: ExportRequest,
        read: Callable[[AnnotatedImage], ImageFile],
        copy: bool = False,
    ) -> None:
        self.tally = Tally()
        self._source = source
        self._request = request
        self._read = read
        self._copy = copy
        every = tuple(source.labels())
        self._numbers = _numbers(every, request.renamed)
        _refuse_unknown("label", request.labels, [label.name for label in every])
        _refuse_unknown("part", request.parts, request.splits.names if request.splits else ())
        left = {old for old, _ in request.renamed} - {new for _, new in request.renamed}
        for name in sorted(request.labels & left):
            raise UsageError(f"no box is {name!r} where that becomes {dict(request.renamed)[name]!r}: ask for that one")
        wanted = request.labels or {label.name for label in every} - left
        self.labels = tuple(label for label in every if label.name in wanted)
        self._wanted = {label.id for label in self.labels}
        self._label_ids = lru_cache(self._label_ids_of)  # regions are many, their labels few

    def images(self) -> Iterator[tuple[DatasetImage, bytes | None]]:
        """Yield the data set's images, in the order of their ids, with their files if they are copied.

        Names are given before anything is left out, so that filters change no name.
        """
        with FileNames() as names:
            for image in self._source.images():
                settled = self.settled(image, names.give(image.reference, image.id, image.file_name))
                if isinstance(settled, str):
                    self.tally.images[settled] += 1
                else:
                    yield settled

    def _why_not(self, image: AnnotatedImage, annotations: Sequence[AttributedAnnotation]) -> str | None:
        """The reason to leave an image out that its annotations alone give."""
        if annotations:
            return None
        if not image.annotations:
            return None if self._request.include_unreviewed else ImageState.NEVER_REVIEWED
        skipped = all(each.annotation.cancelled for each in image.annotations)
        return ImageState.SKIPPED if skipped else "other-annotators-or-dates"

    def _looked_at(self, image: AnnotatedImage) -> list[AttributedAnnotation]:
        request = self._request
        return [
            each
            for each in image.annotations
            if not each.annotation.cancelled
            and (not request.annotators or each.annotation.annotator in request.annotators)
            and (request.since is None or each.annotation.updated_at >= request.since)
            and (request.until is None or each.annotation.updated_at < request.until)
        ]

    def _sized(self, image: AnnotatedImage, file_name: str) -> "_Sized | str":
        """Look at the file where that is needed, and find the image's part; a string says why it is left out."""
        size = _known_size(image)
        file = None
        hashless = self._request.splits is not None and image.sha256 is None
        if self._copy or size is None or hashless:
            try:
                file = self._read(image)
            except ImageError as error:
                self.tally.failures.append(str(error))
                return "file-cannot-be-had"
            facts = file.facts
            if size not in (None, (facts.width, facts.height)):
                self.tally.failures.append(
                    f"{file_name}: annotated at {size[0]} x {size[1]}, the file has {facts.width} x {facts.height}"
                )
                return "file-has-other-size"
            size = facts.width, facts.height
        sha256 = image.sha256 if file is None else file.facts.sha256
        part = self._request.splits.of(sha256) if self._request.splits and sha256 else None
        if self._request.parts and part not in self._request.parts:
            return "other-part"
        return _Sized(*size, sha256, part, file.content if file is not None and self._copy else None)

    def settled(self, image: AnnotatedImage, file_name: str) -> tuple[DatasetImage, bytes | None] | str:
        """Decide what the data set says about an image, and read it where needed; a string says why it is left out."""
        annotations = self._looked_at(image)
        if why := self._why_not(image, annotations):
            return why
        sized = self._sized(image, file_name)
        if isinstance(sized, str):
            return sized
        unusable = self._unusable()
        boxes = self._boxes(annotations, sized.width, sized.height)
        state = ImageState.REVIEWED if boxes else ImageState.REVIEWED_EMPTY
        if not boxes and self._unusable() > unusable:
            return "no-usable-box"  # somebody saw something in it: it must not pass for an image without objects
        if not annotations:
            state = ImageState.NEVER_REVIEWED
        described = DatasetImage(
            id=image.id,
            file_name=file_name,
            original=shown_reference(image.reference),
            width=sized.width,
            height=sized.height,
            sha256=sized.sha256,
            task_id=image.task_id,
            state=state,
            split=sized.part,
            boxes=boxes,
            proposals=self._proposals(image, sized),
        )
        return described, sized.content

    def _unusable(self) -> int:
        return self.tally.boxes.total() - self.tally.boxes["other-labels"]

    def _boxes(self, annotations: Sequence[AttributedAnnotation], width: int, height: int) -> tuple[DatasetBox, ...]:
        settled = settle(annotations, self._request.policy, width, height, self._request.renamed) or Settled(())
        boxes = []
        for region, provenance in settled.regions:
            box = self._box(region, provenance, width, height)
            if isinstance(box, str):
                self.tally.boxes[box] += 1
            else:
                self.tally.clipped += not is_inside(box.box, width, height)
                boxes.append(box)
        for region, provenance in settled.disputed:
            box = self._box(region, provenance, width, height)
            self.tally.boxes[box if isinstance(box, str) else "no-agreement"] += 1
        return tuple(boxes)

    def _box(self, region: AnnotatedRegion, provenance: Provenance, width: int, height: int) -> DatasetBox | str:
        """Clip one box; a string says why it is left out."""
        wanted = "other-shape" if region.tool is not None else self._label_ids(region.labels)
        if isinstance(wanted, str):
            return wanted
        try:
            box = on_grid(percent_to_pixels(region.value, width, height))
        except ValueError:
            return "not-a-box"
        outline = outline_in_image(box, width, height)
        if outline is None:
            return "outside-the-image" if box.width > 0 and box.height > 0 else "no-area"
        return DatasetBox(box, outline, wanted, provenance)

    def _label_ids_of(self, labels: tuple[str, ...]) -> tuple[int, ...] | str:
        """The ids of a region's wanted labels, each once; a string says why it is left out."""
        known = tuple(dict.fromkeys(self._numbers[name] for name in labels if name in self._numbers))
        if not known:
            return "unknown-label" if labels else "no-label"
        return tuple(number for number in known if number in self._wanted) or "other-labels"

    def _proposals(self, image: AnnotatedImage, sized: "_Sized") -> tuple[ScoredBox, ...]:
        chosen = [each for each in image.predictions if each.model_version == self._request.predictions]
        if not chosen or (chosen[-1].width, chosen[-1].height) != (sized.width, sized.height):
            return ()
        proposals = (region.proposal for region in chosen[-1].regions)
        return tuple(
            ScoredBox(box, number, proposal.score)
            for proposal in proposals
            if (number := self._numbers.get(proposal.label)) in self._wanted and number is not None
            if (box := proposal.box.clipped(sized.width, sized.height)).area > 0
        )


@dataclass(frozen=True, slots=True)
class _Sized:
    """What is known of an image once its file was looked at, if it had to be."""

    width: int
    height: int
    sha256: str | None
    part: str | None
    content: bytes | None


def _known_size(image: AnnotatedImage) -> tuple[int, int] | None:
    """The upright size as the file or, where no one looked at it, as all editors saw it."""
    if image.width is not None and image.height is not None:
        return image.width, image.height
    seen = {
        (region.image_width, region.image_height)
        for each in image.annotations
        for region in each.annotation.regions
        if region.image_width and region.image_height
    }
    return next(iter(seen)) if len(seen) == 1 else None


def _numbers(labels: Sequence[DatasetLabel], renamed: Sequence[tuple[str, str]]) -> dict[str, int]:
    numbers = {label.name: label.id for label in labels}
    _refuse_unknown("label", [name for pair in renamed for name in pair], numbers)
    return numbers | {old: numbers[new] for old, new in renamed}


def _refuse_unknown(what: str, names: Iterable[str], there: Iterable[str]) -> None:
    known = list(there)
    for name in sorted(set(names).difference(known)):
        raise UsageError(f"no {what} {name!r}; there are {', '.join(known) or 'none'}")
