"""COCO's average precision over images that count several times or not at all, as the bootstrap needs it.

Letters: D detections and N objects of a label, T overlaps, B resamples, L labels, I images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.analysis.overlap import Floats, corners, overlaps
from backend.domain.records import Proposal
from backend.domain.training_data import LabelledBox

OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = 101  # points of recall, 0.00 to 1.00
_MOST_DETECTIONS = 100  # per image and label
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class MatchedLabel:
    """A label's detections, best score first.

    Attributes:
        images: ``(D,)`` image of each detection.
        found: ``(T, D)`` whether it is on an object that no better one took.
        objects: ``(I,)`` true boxes per image.
    """

    images: NDArray[np.intp]
    found: NDArray[np.bool_]
    objects: Floats


def match_detections(
    truth: Sequence[Sequence[LabelledBox]], proposals: Sequence[Sequence[Proposal]], label: str
) -> MatchedLabel:
    """Pair a label's proposals with its true boxes, image by image, as COCO does: by score, each with the best left."""
    scores, images, found, objects = [], [], [], []
    for image, (true, proposed) in enumerate(zip(truth, proposals, strict=True)):
        own = sorted((each for each in proposed if each.label == label), key=lambda each: -each.score)
        own = own[:_MOST_DETECTIONS]
        boxes = [each.box for each in true if each.label == label]
        objects.append(len(boxes))
        scores += [each.score for each in own]
        images += [image] * len(own)
        found.append(_greedy(overlaps(corners([each.box for each in own]), corners(boxes))))
    order = np.argsort(-np.array(scores), kind="stable")
    return MatchedLabel(np.array(images, np.intp)[order], np.concatenate(found, 1)[:, order], np.array(objects, float))


def _greedy(shared: Floats) -> NDArray[np.bool_]:
    """Whether each detection finds an object ``(T, D)``, given overlaps ``(D, N)``."""
    found = np.zeros((len(OVERLAPS), len(shared)), bool)
    if not shared.size:
        return found
    rows = np.arange(len(OVERLAPS))
    free = np.ones((len(OVERLAPS), shared.shape[1]), bool)
    for place, row in enumerate(shared):
        left = np.where(free, row, -1.0)  # (T, N)
        # COCO takes the last of equally good objects.
        best = left.shape[1] - 1 - left[:, ::-1].argmax(1)
        found[:, place] = left[rows, best] >= np.minimum(OVERLAPS, 1 - 1e-10)
        free[rows[found[:, place]], best[found[:, place]]] = False
    return found


def average_precision(matched: MatchedLabel, counts: Floats) -> Floats:
    """AP ``(B, T)`` at each of `OVERLAPS` where image i counts ``counts[b, i]`` times; NaN where no object is left."""
    parts = np.array_split(counts, max(1, -(-len(counts) // _CHUNK)))
    return np.concatenate([_precision(matched, each) for each in parts])


def _precision(matched: MatchedLabel, counts: Floats) -> Floats:
    objects = counts @ matched.objects  # (B,)
    weights = counts[:, matched.images]  # (B, D)
    shown = np.cumsum(weights, -1)
    # Precision is highest, and recall grows, where an object is found: the other detections are most, and only counted.
    means = [_mean_precision(weights[:, found], shown[:, found], objects) for found in matched.found]
    return np.where(objects[:, None] > 0, np.stack(means, -1), np.nan)


def _mean_precision(weights: Floats, shown: Floats, objects: Floats) -> Floats:
    """The mean ``(B,)`` over points of recall, of detections that find an object, given their weights and the sums of
    weights up to them ``(B, F)``."""
    right = np.cumsum(weights, -1)
    precision = np.divide(right, shown, out=np.zeros_like(right), where=shown > 0)
    best = np.maximum.accumulate(precision[:, ::-1], -1)[:, ::-1]
    recall = right / np.where(objects > 0, objects, 1.0)[:, None]
    # Each detection answers for the points of recall that it is the first to reach.
    reached = np.floor(recall * (_RECALLS - 1) + 1 + 1e-9) * (right > 0)
    points = np.diff(reached, axis=-1, prepend=0)
    return np.asarray((best * points).sum(-1) / _RECALLS)
