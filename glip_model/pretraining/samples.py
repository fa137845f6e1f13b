"""One training sample: a picture, its boxes, and the text that names them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glip_model.pretraining.words import SCENE_WORDS

SEPARATOR = ". "

Span = tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """A picture with named boxes.

    Attributes:
        rgb: ``(H, W, 3)`` uint8.
        boxes_xyxy: ``(N, 4)`` float32 in pixels of ``rgb``, 0 <= x1 < x2 <= W.
        names: for each box the names it answers to, most often one; all are in ``asked``.
        asked: every name that was looked for; each thing in the picture that fits one of them has its box.
        described: for each box all the words that fit it, where that is known of every word of the generated scenes.
    """

    rgb: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    names: tuple[tuple[str, ...], ...]
    asked: tuple[str, ...]
    described: tuple[frozenset[str], ...] | None = None


@dataclass(frozen=True)
class CaptionedSample:
    """A picture whose boxes point at character spans ``[start, end)`` of one caption.

    ``words`` are those that fit each box, ``decided`` all words of which that was settled.
    """

    rgb: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    caption: str
    spans: tuple[tuple[Span, ...], ...]
    words: tuple[frozenset[str], ...]
    decided: frozenset[str]


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
    spans = tuple(tuple(where[name] for name in names) for names in sample.names)
    if sample.described is None:
        words = tuple(words_of(names) for names in sample.names)
        # A real board may well be blue: that "blue square" is no name of it says nothing about "blue".
        decided = words_of(sample.asked) - SCENE_WORDS
    else:
        words, decided = sample.described, SCENE_WORDS
    return CaptionedSample(sample.rgb, sample.boxes_xyxy, caption, spans, words, decided)
