"""One training sample: a picture, its boxes, and the text that names them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glip_model.pretraining.words import SCENE_WORDS, Looks
from glip_model.training.samples import Sample

SEPARATOR = ". "

Span = tuple[int, int]


@dataclass(frozen=True)
class SceneSample(Sample):
    """A generated scene.

    Attributes:
        looks: how the thing in each box looks; a box may then answer to no name.
        undecided: for each box the asked names of which training may not say whether they fit.
    """

    looks: tuple[Looks, ...] = ()
    undecided: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class CaptionedSample:
    """A picture whose boxes point at character spans ``[start, end)`` of one caption.

    Attributes:
        rgb, boxes_xyxy: as of :class:`Sample`.
        caption: the text.
        spans: for each box those that name it.
        undecided: for each box those that may or may not name it.
        words: for each box the words that fit it.
        decided: for each box the words of which that is settled, those that fit among them.
    """

    rgb: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    caption: str
    spans: tuple[tuple[Span, ...], ...]
    undecided: tuple[tuple[Span, ...], ...]
    words: tuple[frozenset[str], ...]
    decided: tuple[frozenset[str], ...]


def words_of(names: Sequence[str]) -> frozenset[str]:
    """All words of some names."""
    return frozenset(word for name in names for word in name.split())


def joined_names(names: Sequence[str]) -> tuple[str, dict[str, Span]]:
    """Join names as detection captions are joined, and say where each one stands."""
    spans: dict[str, Span] = {}
    at = 0
    for name in names:
        spans[name] = (at, at + len(name))
        at += len(name) + len(SEPARATOR)
    return SEPARATOR.join(names), spans


def as_captioned(sample: Sample, rng: np.random.Generator) -> CaptionedSample:
    """Turn a list of names into a caption, in random order."""
    order = [sample.asked[i] for i in rng.permutation(len(sample.asked))]
    caption, where = joined_names(order)

    def spans_of(names_of_boxes: Sequence[Sequence[str]]) -> tuple[tuple[Span, ...], ...]:
        return tuple(tuple(where[name] for name in names) for names in names_of_boxes)

    undecided: tuple[tuple[str, ...], ...] = ((),) * len(sample.names)
    if isinstance(sample, SceneSample):
        words = tuple(looks.words for looks in sample.looks)
        decided = tuple(looks.decided for looks in sample.looks)
        undecided = sample.undecided
    else:
        words = tuple(words_of(names) for names in sample.names)
        # A real board may well be blue: that "blue square" is no name of it says nothing about "blue".
        decided = (words_of(sample.asked) - SCENE_WORDS,) * len(words)
    spans = spans_of(sample.names), spans_of(undecided)
    return CaptionedSample(sample.rgb, sample.boxes_xyxy, caption, *spans, words, decided)
