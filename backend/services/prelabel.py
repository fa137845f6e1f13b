"""Find boxes in many pictures, one batch after the other, whatever becomes of some of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from backend.domain.records import Picture, Proposal, Query
from backend.errors import ImageError
from backend.ports import Detector, Images


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in one picture, best score first; possibly nothing."""

    reference: str
    picture: Picture
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be had, and why in one line."""

    reference: str
    reason: str


@dataclass(frozen=True, slots=True)
class PrelabelSettings:
    """How to look: boxes that score ``score_threshold`` or more, ``batch_size`` pictures at a time."""

    score_threshold: float
    batch_size: int


def prelabel(
    references: Iterable[str],
    query: Query,
    *,
    images: Images,
    detector: Detector,
    settings: PrelabelSettings,
) -> Iterator[Found | Skipped]:
    """Yield one outcome per reference, in order; no more pictures are held than one batch has.

    Raises:
        UsageError: the query asks for something impossible.
        ModelError: the weights cannot be used.
    """
    remaining = iter(references)
    while batch := list(islice(remaining, settings.batch_size)):
        yield from _outcomes(batch, query, images, detector, settings)


def _outcomes(
    batch: Sequence[str], query: Query, images: Images, detector: Detector, settings: PrelabelSettings
) -> Iterator[Found | Skipped]:
    fetched = [_fetched(images, reference) for reference in batch]
    pictures = [picture for picture in fetched if isinstance(picture, Picture)]
    found = iter(detector.detect(pictures, query, score_threshold=settings.score_threshold) if pictures else [])
    for reference, picture in zip(batch, fetched, strict=True):
        if isinstance(picture, Picture):
            yield Found(reference, picture, tuple(next(found)))
        else:
            yield picture


def _fetched(images: Images, reference: str) -> Picture | Skipped:
    try:
        return images.fetch(reference)
    except ImageError as error:
        return Skipped(reference, str(error))
