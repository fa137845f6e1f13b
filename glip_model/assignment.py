"""Which anchors answer for which box during training: adaptive training sample selection (ATSS).

Shape letters: B images, A anchors, N boxes of all images together, K candidates per box, P positives.
Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via ATSS" (2020),
with GLIP's 9 candidates per level and overlaps that count the last pixel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glip_model.box_ops import box_centres, box_iou

_CANDIDATES_PER_LEVEL = 9
_INSIDE_MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Assignment:
    """The P (image, anchor) cells that answer for a box, ordered by image, then anchor."""

    image: Tensor  # (P,) int64
    anchor: Tensor  # (P,) int64, index over all levels
    box: Tensor  # (P,) int64, row in the boxes that were assigned


def assign_anchors(anchors: Sequence[Tensor], boxes_xyxy: Tensor, box_image: Tensor, num_images: int) -> Assignment:
    """Choose the positive anchors of every box.

    The candidates of a box are, on each level, the 9 anchors whose centres are nearest to its own. Those are
    positive whose overlap reaches the mean plus one standard deviation over the candidates and whose centre
    lies inside the box. An anchor wanted by two boxes goes to the one it overlaps more. A box may end up
    without any anchor; so may an image.

    Args:
        anchors: one ``(cells, 4)`` tensor per level, the same for all images.
        boxes_xyxy: ``(N, 4)`` boxes of all images, in pixels of the network input.
        box_image: ``(N,)`` int64, the image each box belongs to.
        num_images: B.
    """
    if len(boxes_xyxy) == 0:
        return Assignment(box_image, box_image, box_image)
    all_anchors = torch.cat(list(anchors))  # (A, 4)
    centres = box_centres(boxes_xyxy)  # (N, 2)
    candidates = _nearest_anchors(anchors, centres)  # (N, K)
    overlap = box_iou(boxes_xyxy[:, None], all_anchors[candidates], border=1.0)
    threshold = overlap.mean(dim=1, keepdim=True) + overlap.std(dim=1, keepdim=True)
    points = box_centres(all_anchors)[candidates]  # (N, K, 2)
    margins = torch.cat((points - boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:] - points), dim=-1)
    inside = margins.amin(dim=-1) > _INSIDE_MARGIN  # (N, K)
    box, rank = (inside & (overlap >= threshold)).nonzero(as_tuple=True)
    cell = box_image[box] * len(all_anchors) + candidates[box, rank]  # (P',) over B * A
    overlap = overlap[box, rank]

    # Conflicts: each cell goes to its largest overlap, among equal overlaps to the first box.
    best = overlap.new_zeros(num_images * len(all_anchors)).scatter_reduce_(0, cell, overlap, "amax")
    winner = overlap == best[cell]
    cell, box = cell[winner], box[winner]
    owner = torch.full_like(best, len(boxes_xyxy), dtype=torch.int64).scatter_reduce_(0, cell, box, "amin")
    cell = (owner < len(boxes_xyxy)).nonzero()[:, 0]
    return Assignment(cell // len(all_anchors), cell % len(all_anchors), owner[cell])


def assign_targets(anchors: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> tuple[Assignment, Tensor]:
    """Choose the positive anchors of a batch.

    Args:
        anchors: one ``(cells, 4)`` tensor per level.
        targets: for each image "boxes" ``(N, 4)`` xyxy in pixels of the network input, N may be 0.

    Returns:
        The positives, and the float32 boxes ``(N, 4)`` of all images in order that their ``box`` counts.
    """
    boxes = torch.cat([target["boxes"] for target in targets]).to(anchors[0].device, torch.float32)
    counts = torch.tensor([len(target["boxes"]) for target in targets], device=boxes.device)
    box_image = torch.arange(len(targets), device=boxes.device).repeat_interleave(counts)
    return assign_anchors(anchors, boxes, box_image, len(targets)), boxes


def _nearest_anchors(anchors: Sequence[Tensor], centres: Tensor) -> Tensor:
    """Return the indices ``(N, K)`` over all levels of the anchors nearest to each centre."""
    nearest = []
    start = 0
    for level in anchors:
        distance = (box_centres(level) - centres[:, None]).square().sum(dim=-1).sqrt()  # (N, cells)
        count = min(_CANDIDATES_PER_LEVEL, len(level))
        nearest.append(distance.topk(count, dim=1, largest=False).indices + start)
        start += len(level)
    return torch.cat(nearest, dim=1)
