"""The three training losses of GLIP: token alignment, centerness, box overlap.

Shape letters: B images, A anchors, T tokens, N boxes, P positive anchors.
Source: Li et al., "Grounded Language-Image Pre-training" (2022), with the constants of the official code.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from glip_model.assignment import Assignment, assign_targets
from glip_model.box_ops import box_centres, decode_boxes, encode_boxes, generalized_box_iou

_FOCAL_POSITIVE_WEIGHT = 0.25
_BOX_LOSS_WEIGHT = 2.0
_REJECTED_WEIGHT = 1.0  # beside the 1 that every reviewed negative has

TOKEN_MAPS = ("positive_map", "rejected_map", "unasked")
"""What of a target has one place for each token, in its last dimension."""

UNDECIDED = -1
"""Mark in targets of a token of which nobody knows whether it names the box: no loss."""

# GLIP trains anchors without a box towards the last of 256 token positions; shorter texts have none such.
_NO_OBJECT_TEXT_LENGTH = 256


def detection_losses(
    token_logits: Tensor,
    box_deltas: Tensor,
    centerness: Tensor,
    *,
    anchors: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    attention_mask: Tensor,
) -> dict[str, Tensor]:
    """Return the weighted losses, whose plain sum is to be minimised; finite also when no image has a box.

    All of them are computed in float32 whatever the precision of the predictions.

    Args:
        token_logits: ``(B, A, T)``.
        box_deltas: ``(B, A, 4)``.
        centerness: ``(B, A)`` logits.
        anchors: one ``(cells, 4)`` tensor per level.
        targets: for each image "boxes" ``(N, 4)`` xyxy in pixels of the network input, N may be 0, and "positive_map"
            ``(N, T)``, 1 at the tokens that name the box, -1 at undecided ones and 0 elsewhere. It may have
            "unreviewed" ``(R, 4)``, regions whose anchors teach nothing where they are no positives; "rejected"
            ``(K, 4)`` and "rejected_map" ``(K, T)``, boxes and the tokens that do not name them, which counts once more
            than where nobody looked, and in unreviewed regions too; "unasked" ``(T,)``, 1 at the tokens of names that
            nobody looked for, about which the image teaches nothing; and "weight" ``()``, how much the image counts.
        attention_mask: ``(B, T)``, 1 at the tokens of the text and 0 at its padding.

    Returns:
        Scalars under "token", "centerness" and "box".

    Raises:
        ValueError: the targets do not fit the predictions.
    """
    _check_targets(targets, token_logits.shape)
    attention_mask = _taught(attention_mask, targets)
    positives, boxes = assign_targets(anchors, targets)
    weights = torch.stack([target.get("weight", boxes.new_ones(())) for target in targets]).to(boxes)  # (B,)
    cells = (positives.image, positives.anchor)
    weight = weights[positives.image]  # (P,)
    num_positives = max(1, len(positives.box))

    positive_map = torch.cat([target["positive_map"] for target in targets]).to(boxes)  # (N, T)
    wanted_tokens = positive_map[positives.box]  # (P, T)
    token_loss = _token_loss(token_logits, positives, wanted_tokens, attention_mask)
    token_loss = token_loss + _review_loss(token_logits, positives, anchors, targets, attention_mask)

    positive_anchors = torch.cat(list(anchors))[positives.anchor]  # (P, 4)
    wanted = decode_boxes(encode_boxes(boxes[positives.box], positive_anchors), positive_anchors)
    wanted_centerness = centerness_targets(wanted, positive_anchors)
    centerness_loss = F.binary_cross_entropy_with_logits(
        centerness[cells].float(), wanted_centerness, weight, reduction="sum"
    )
    found = decode_boxes(box_deltas[cells].float(), positive_anchors)
    box_loss = (weight * wanted_centerness * (1 - generalized_box_iou(found, wanted))).sum()
    # Every target is above 0, so the floor acts only without any positive, where the sum above is 0 as well.
    box_loss = box_loss / wanted_centerness.sum().clamp(min=torch.finfo(torch.float32).tiny)
    return {
        "token": (token_loss * weights).sum() / num_positives,
        "centerness": centerness_loss / num_positives,
        "box": _BOX_LOSS_WEIGHT * box_loss,
    }


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sigmoid focal loss per element, gamma 2, positives weighted 0.25 and negatives 0.75.

    Args:
        logits: any shape, float32.
        targets: 0 or 1, broadcastable to the logits.

    Source: Lin et al., "Focal Loss for Dense Object Detection" (2017).
    """
    wrong = logits * (1 - 2 * targets)  # the logit of the wrong answer
    weight = (1 - _FOCAL_POSITIVE_WEIGHT) * (1 - targets) + _FOCAL_POSITIVE_WEIGHT * targets
    return weight * wrong.sigmoid().square() * F.softplus(wrong)


def centerness_targets(boxes_xyxy: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """Return in (0, 1] how central anchors ``(P, 4)`` lie in boxes ``(P, 4)`` around them, shape ``(P,)``.

    Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (2019).
    """
    centres = box_centres(anchors_xyxy)
    before, after = centres - boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - centres
    return (torch.minimum(before, after) / torch.maximum(before, after)).prod(dim=-1).sqrt()


def _taught(attention_mask: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The mask without the tokens about which an image teaches nothing."""
    return torch.stack(
        [
            tokens.masked_fill(target["unasked"] > 0, 0) if "unasked" in target else tokens
            for tokens, target in zip(attention_mask, targets, strict=True)
        ]
    )


def _token_loss(token_logits: Tensor, positives: Assignment, wanted: Tensor, attention_mask: Tensor) -> Tensor:
    """Return per image ``(B,)`` the focal loss summed over all anchors and all tokens of the text."""
    logits = token_logits.float()
    background = _background(logits)
    # Nearly all anchors are background: sum as if all were, then exchange the rows of the positive ones.
    mask = attention_mask.to(logits)  # (B, T)
    everywhere = (focal_loss(logits, background).sum(dim=1) * mask).sum(dim=1)  # (B,)
    rows = logits[positives.image, positives.anchor]  # (P, T)
    exchange = focal_loss(rows, wanted.clamp(min=0)) * (wanted != UNDECIDED) - focal_loss(rows, background)
    return everywhere.index_add(0, positives.image, (exchange * mask[positives.image]).sum(dim=1))


def _review_loss(
    token_logits: Tensor,
    positives: Assignment,
    anchors: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    attention_mask: Tensor,
) -> Tensor:
    """Return per image ``(B,)`` what unreviewed regions take away from the token loss and rejected boxes add to it."""
    total = token_logits.new_zeros(len(targets), dtype=torch.float32)
    if not any("unreviewed" in target or "rejected" in target for target in targets):
        return total
    points = box_centres(torch.cat(list(anchors)))  # (A, 2)
    mask = attention_mask.to(total)
    for image, target in enumerate(targets):
        named = positives.anchor[positives.image == image]
        if "unreviewed" in target:
            x1, y1, x2, y2 = target["unreviewed"].to(points)[:, None].unbind(-1)  # (R, 1) each
            inside = (points[:, 0] >= x1) & (points[:, 0] <= x2) & (points[:, 1] >= y1) & (points[:, 1] <= y2)
            unknown = inside.any(0)  # (A,)
            unknown[named] = False
            rows = token_logits[image, unknown].float()
            total[image] -= (focal_loss(rows, _background(rows)) * mask[image]).sum()
        if "rejected" in target:
            ruled = assign_targets(anchors, [{"boxes": target["rejected"]}])[0]
            free = ~torch.isin(ruled.anchor, named)
            rows = token_logits[image, ruled.anchor[free]].float()
            names = target["rejected_map"].to(rows)[ruled.box[free]]
            total[image] += _REJECTED_WEIGHT * (focal_loss(rows, torch.zeros_like(rows)) * names).sum()
    return total


def _background(logits: Tensor) -> Tensor:
    """What anchors without a box are trained towards, ``(T,)``."""
    background = logits.new_zeros(logits.shape[-1])
    if len(background) == _NO_OBJECT_TEXT_LENGTH:
        background[-1] = 1
    return background


def _check_targets(targets: Sequence[Mapping[str, Tensor]], logits_shape: torch.Size) -> None:
    images, _, tokens = logits_shape
    if len(targets) != images:
        raise ValueError(f"{len(targets)} targets for {images} images")
    for image, target in enumerate(targets):
        boxes, positive_map = target["boxes"], target["positive_map"]
        if boxes.shape != (len(boxes), 4):
            raise ValueError(f"boxes of image {image} have shape {tuple(boxes.shape)}, not (N, 4)")
        if positive_map.shape != (len(boxes), tokens):
            raise ValueError(
                f"positive_map of image {image} has shape {tuple(positive_map.shape)},"
                f" not ({len(boxes)} boxes, {tokens} tokens)"
            )
