"""Box arithmetic of the detector: overlap, coding relative to anchors, suppression of duplicates.

Shape letters: N, M boxes. Boxes are ``(x1, y1, x2, y2)`` in pixels of the resized network input.
GLIP counts the last pixel as part of a box in some places (width ``x2 - x1 + 1``) and not in others; each
function says which one it uses.
"""

import math
from typing import cast

import torch
from torch import Tensor

# Official coder: centre offsets are multiplied by 10, log sizes by 5; a decoded box grows at most 62.5 fold.
_CENTRE_WEIGHT = 10.0
_SIZE_WEIGHT = 5.0
_MAX_LOG_GROWTH = math.log(1000.0 / 16)

_GIOU_EPSILON = 1e-7
_NMS_ROWS = 256


def box_area(boxes_xyxy: Tensor, border: float = 0.0) -> Tensor:
    """Return ``(width + border) * (height + border)`` of boxes ``(..., 4)``, shape ``(...)``."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    return (x2 - x1 + border) * (y2 - y1 + border)


def box_iou(boxes_xyxy: Tensor, others_xyxy: Tensor, border: float = 0.0) -> Tensor:
    """Return the overlap of every pair in two broadcast sets of boxes.

    Args:
        boxes_xyxy: ``(..., 4)``; give it as ``(N, 1, 4)`` to meet every one of ``(M, 4)``.
        others_xyxy: ``(..., 4)``, broadcast against the first.
        border: what is added to each width and height; 1 counts the last pixel, as GLIP does in matching and
            suppression.

    Returns:
        Intersection over union in [0, 1], broadcast shape; 0 where neither box has any area.
    """
    size = torch.minimum(boxes_xyxy[..., 2:], others_xyxy[..., 2:])
    size = (size - torch.maximum(boxes_xyxy[..., :2], others_xyxy[..., :2]) + border).clamp(min=0)
    shared = size[..., 0] * size[..., 1]
    union = box_area(boxes_xyxy, border) + box_area(others_xyxy, border) - shared
    return shared / torch.where(union > 0, union, 1)


def generalized_box_iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Return the generalised overlap in (-1, 1] of boxes ``(N, 4)`` and ``(N, 4)`` in pairs, shape ``(N,)``.

    Widths are plain differences. A first box with its corners in the wrong order, as an untrained network can
    emit, has no area. Source: Rezatofighi et al., "Generalized Intersection over Union" (2019).
    """
    low, high = boxes_xyxy[..., :2], torch.maximum(boxes_xyxy[..., :2], boxes_xyxy[..., 2:])
    boxes = torch.cat((low, high), dim=-1)
    size = torch.minimum(high, others_xyxy[..., 2:]) - torch.maximum(low, others_xyxy[..., :2])
    shared = size.clamp(min=0).prod(dim=-1)
    union = box_area(boxes) + box_area(others_xyxy) - shared + _GIOU_EPSILON
    hull = torch.maximum(high, others_xyxy[..., 2:]) - torch.minimum(low, others_xyxy[..., :2])
    hull_area = hull.prod(dim=-1) + _GIOU_EPSILON
    return shared / union - (hull_area - union) / hull_area


def encode_boxes(boxes_xyxy: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """Return boxes ``(..., 4)`` as offsets ``(..., 4)`` from their anchors, the inverse of `decode_boxes`.

    Widths count the last pixel; boxes must have ``x2 > x1 - 1`` and ``y2 > y1 - 1``.
    """
    sizes = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2] + 1
    anchor_sizes = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2] + 1
    shift = box_centres(boxes_xyxy) - box_centres(anchors_xyxy)
    offsets = (_CENTRE_WEIGHT * shift / anchor_sizes, _SIZE_WEIGHT * (sizes / anchor_sizes).log())
    return torch.cat(offsets, dim=-1)


def decode_boxes(deltas: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """Return the boxes ``(..., 4)`` that offsets ``(..., 4)`` from anchors ``(..., 4)`` stand for.

    Widths count the last pixel. A box becomes at most 62.5 times as wide or high as its anchor.
    """
    anchor_sizes = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2] + 1
    centres = deltas[..., :2] / _CENTRE_WEIGHT * anchor_sizes + box_centres(anchors_xyxy)
    growth = (deltas[..., 2:] / _SIZE_WEIGHT).clamp(max=_MAX_LOG_GROWTH).exp()
    reach = (growth * anchor_sizes - 1) / 2
    return torch.cat((centres - reach, centres + reach), dim=-1)


def box_centres(boxes_xyxy: Tensor) -> Tensor:
    """Return the mean of the corners, ``(..., 4)`` -> ``(..., 2)`` as (x, y)."""
    return (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2


def clip_boxes(boxes_xyxy: Tensor, image_size_hw: tuple[int, int], border: float = 1.0) -> Tensor:
    """Return boxes ``(N, 4)`` with corners moved into ``[0, width - border] x [0, height - border]``.

    With a border of 1 corners name pixels, of which the last is ``width - 1``, as in GLIP; with 0 they name edges.
    """
    height, width = image_size_hw
    limits = boxes_xyxy.new_tensor((width - border, height - border) * 2)
    return torch.minimum(boxes_xyxy.clamp(min=0), limits)


def nms(boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Return the indices of the boxes that greedy suppression within each label keeps, best score first.

    Among equal scores the box that comes first wins and is returned first. A box is dropped when its overlap
    with a kept better one of the same label is strictly above ``threshold``; overlap counts the last pixel.

    Args:
        boxes_xyxy: ``(N, 4)``.
        scores: ``(N,)``.
        labels: ``(N,)`` integers.
        threshold: overlap in [0, 1].
    """
    by_score = torch.argsort(scores, descending=True, stable=True)
    order = by_score[torch.argsort(labels[by_score], stable=True)]
    better, worse = _overlapping_pairs(boxes_xyxy[order], labels[order], threshold)
    # Pairs point from better to worse, so the greedy answer is the only fixed point of "kept means that no
    # kept better box overlaps". Each round settles the boxes one step further down the chains of pairs.
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:
        now = torch.ones_like(kept)
        now[worse[kept[better]]] = False
        if torch.equal(now, kept):
            break
        kept = now
    is_kept = torch.zeros_like(kept)
    is_kept[order[kept]] = True
    return by_score[is_kept[by_score]]


def _overlapping_pairs(boxes_xyxy: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return index pairs (i < j) that overlap within a label beyond the threshold; needs sorted labels."""
    label_ends = torch.searchsorted(labels, labels, right=True).tolist()
    firsts, seconds = [labels.new_empty(0)], [labels.new_empty(0)]
    for start in range(0, len(boxes_xyxy), _NMS_ROWS):
        stop = min(start + _NMS_ROWS, len(boxes_xyxy))
        end = cast(int, label_ends[stop - 1])
        overlap = box_iou(boxes_xyxy[start:stop, None], boxes_xyxy[start:end], border=1.0)  # (rows, columns)
        same = labels[start:stop, None] == labels[start:end]
        rows, columns = ((overlap > threshold) & same).triu(diagonal=1).nonzero(as_tuple=True)
        firsts.append(rows + start)
        seconds.append(columns + start)
    return torch.cat(firsts), torch.cat(seconds)
