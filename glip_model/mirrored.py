"""A second look at each picture, in the mirror, and one answer of both: what test-time augmentation is in detection.

Shape letters: N boxes of both looks, K boxes that remain.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from glip_model.box_ops import clip_boxes, nms
from glip_model.caption import Caption
from glip_model.inference import GlipDetector, ImageDetections
from glip_model.postprocess import agreeing, voted_boxes

_POWER = 4.0
"""Of scores as votes on where a box lies: looks err independently, so that a less sure one counts more than a
neighbouring anchor does."""


def detect_both_ways(
    detector: GlipDetector,
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[Caption],
    score_threshold: float = 0.0,
) -> list[ImageDetections]:
    """Look for all captions in each image and in its mirror image. Takes twice as long as one look.

    A box scores the mean of what either look gives to boxes of its label that overlap it, 0 where there is none, and
    lies where these lie in the mean. Not for names to which left and right matter.

    Args, returns and raises: as ``GlipDetector.detect``.
    """
    seen = detector.detect(images, captions)
    mirrored = detector.detect([np.ascontiguousarray(image[:, ::-1]) for image in images], captions)
    threshold = detector.settings.nms_threshold
    return [
        _inside(_agreed(one, _turned_back(other, image.shape[1]), threshold, score_threshold), image)
        for image, one, other in zip(images, seen, mirrored, strict=True)
    ]


def _turned_back(found: ImageDetections, width: int) -> ImageDetections:
    x1, y1, x2, y2 = found.boxes_xyxy.unbind(dim=1)
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    return ImageDetections(boxes, found.scores, found.labels, found.prompts)


def _inside(found: ImageDetections, image: NDArray[np.uint8]) -> ImageDetections:
    """What is found without what rounding of a mean adds to boxes that reach the edge."""
    return replace(found, boxes_xyxy=clip_boxes(found.boxes_xyxy, (image.shape[0], image.shape[1]), border=0))


def _agreed(one: ImageDetections, other: ImageDetections, threshold: float, score_threshold: float) -> ImageDetections:
    boxes = torch.cat([one.boxes_xyxy, other.boxes_xyxy])  # (N, 4)
    scores, labels = torch.cat([one.scores, other.scores]), torch.cat([one.labels, other.labels])
    prompts = one.prompts + other.prompts
    kept = nms(boxes, scores, labels, threshold)
    agree = agreeing(boxes, scores, labels, kept, threshold)  # (K, N)
    places = voted_boxes(boxes, scores, kept, agree, _POWER)
    looks = (scores * agree).tensor_split([len(one.scores)], dim=1)
    means = sum((look.amax(dim=1) for look in looks if look.shape[1]), torch.zeros(len(kept))) / 2
    order = means.argsort(descending=True, stable=True)
    order = order[means[order] >= score_threshold]
    words = tuple(prompts[at] for at in kept[order].tolist())
    return ImageDetections(places[order], means[order], labels[kept[order]], words)
