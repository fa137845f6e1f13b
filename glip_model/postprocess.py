"""From token logits and box offsets to detections: scoring, candidate choice, decoding, suppression.

Shape letters: B images, A anchors (cells of P3 to P7 in that order), T tokens, C labels, N detections.
Frame: pixels of the resized, unpadded network input. Source: the inference of the official GLIP code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glip_model.box_ops import box_iou, clip_boxes, decode_boxes, nms


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes found in one image, best score first."""

    boxes_xyxy: Tensor  # (N, 4) float
    scores: Tensor  # (N,) float in (0, 1]
    labels: Tensor  # (N,) int64, index into the labels asked for


@dataclass(frozen=True, slots=True)
class PostprocessSettings:
    """What is kept.

    ``score_threshold`` is compared with the label's probability alone. The reported score is the geometric
    mean of probability and centerness. With ``voting_power`` the place of each kept box is the mean of all that agree
    with it (`voted_boxes`); without, as in the official code, that of the best of them. ``border`` is 1 where x2 and y2
    name a box's last pixel, as in the official code, and 0 where they name the edge behind it.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    max_detections: int = 100
    candidates_per_level: int = 1000
    voting_power: float | None = None
    border: float = 1.0


def label_scores(token_logits: Tensor, label_tokens: Sequence[Sequence[int]]) -> Tensor:
    """Return every label's probability: the mean of its tokens' sigmoids.

    Args:
        token_logits: ``(..., T)``.
        label_tokens: the token positions of each of the C labels.

    Returns:
        ``(..., C)`` float32.

    Raises:
        ValueError: a label owns no token, or a token outside the text.
    """
    width = token_logits.shape[-1]
    for label, tokens in enumerate(label_tokens):
        if not tokens:
            raise ValueError(f"label {label} owns no token of the caption")
        if min(tokens) < 0 or max(tokens) >= width:
            raise ValueError(f"label {label} owns a token outside the {width} tokens of the caption")
    # Ranks of tokens within their label: one gather for all first tokens, one for all second tokens, ...
    longest = max((len(tokens) for tokens in label_tokens), default=0)
    scores = token_logits.new_zeros((*token_logits.shape[:-1], len(label_tokens)), dtype=torch.float32)
    for rank in range(longest):
        owners = [label for label, tokens in enumerate(label_tokens) if len(tokens) > rank]
        columns = [label_tokens[label][rank] for label in owners]
        scores[..., owners] += token_logits[..., columns].float().sigmoid()
    return scores / scores.new_tensor([len(tokens) for tokens in label_tokens])


@torch.no_grad()
def detect_boxes(
    probabilities: Tensor,
    box_deltas: Tensor,
    centerness: Tensor,
    *,
    anchors: Sequence[Tensor],
    image_sizes_hw: Sequence[tuple[int, int]],
    settings: PostprocessSettings,
) -> list[Detections]:
    """Return the detections of every image.

    Args:
        probabilities: ``(B, A, C)`` from `label_scores`.
        box_deltas: ``(B, A, 4)``.
        centerness: ``(B, A)`` logits.
        anchors: one ``(cells, 4)`` tensor per level.
        image_sizes_hw: the size of every image before padding; boxes are clipped to it.
        settings: thresholds and limits.
    """
    detections = []
    for image, size_hw in enumerate(image_sizes_hw):
        anchor, label, score = _candidates(probabilities[image], centerness[image].float(), anchors, settings)
        boxes = decode_boxes(box_deltas[image, anchor].float(), torch.cat(list(anchors))[anchor])
        boxes = clip_boxes(boxes, size_hw, settings.border)
        kept = nms(boxes, score, label, settings.nms_threshold)
        if len(kept) > settings.max_detections:
            # Boxes that tie with the last one stay too, so the answer does not depend on the order of equals.
            kept = kept[score[kept] >= score[kept[settings.max_detections - 1]]]
        places = boxes[kept]
        if (power := settings.voting_power) is not None:
            agree = agreeing(boxes, score, label, kept, settings.nms_threshold)
            places = voted_boxes(boxes, score, kept, agree, power)
        detections.append(Detections(places, score[kept], label[kept]))
    return detections


def agreeing(boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, threshold: float) -> Tensor:
    """Return which boxes are about the same object as each kept one: ``(K, N)`` bool.

    They have its label, overlap it by the threshold of NMS, and are not surer: what is surer than a kept box was
    suppressed by another object's.

    Args:
        boxes_xyxy: ``(N, 4)``, all candidates.
        scores: ``(N,)``, above 0.
        labels: ``(N,)`` integers.
        kept: ``(K,)`` indices of the boxes that NMS kept.
        threshold: least overlap, of boxes whose sides are a pixel longer, as in NMS.
    """
    overlap = box_iou(boxes_xyxy[kept, None], boxes_xyxy, border=1.0)
    return (overlap >= threshold) & (labels[kept, None] == labels) & (scores <= scores[kept, None])


def voted_boxes(boxes_xyxy: Tensor, scores: Tensor, kept: Tensor, agree: Tensor, power: float) -> Tensor:
    """Return where kept boxes lie by the mean of all that agree with them, each counted by ``score ** power``.

    Neighbouring anchors err differently about an edge, and those that are as sure as the best one about as little.
    Source: Gidaris and Komodakis, "Object detection via a multi-region and semantic segmentation-aware CNN model"
    (2015), section 5.

    Args:
        boxes_xyxy, scores, kept: as of `agreeing`.
        agree: what that returned.
        power: 0 or more.

    Returns:
        ``(K, 4)``.
    """
    # Relative to the kept box, so that low scores to a high power stay above 0.
    votes = (scores / scores[kept, None]).pow(power) * agree
    return (votes @ boxes_xyxy) / votes.sum(dim=1, keepdim=True)


def _candidates(
    probabilities: Tensor, centerness: Tensor, anchors: Sequence[Tensor], settings: PostprocessSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchor, label and final score of the best (anchor, label) pairs of each level, each ``(N,)``."""
    found = []
    start = 0
    for stop in torch.tensor([len(level) for level in anchors]).cumsum(0).tolist():
        level = probabilities[start:stop]
        anchor, label = (level > settings.score_threshold).nonzero(as_tuple=True)
        ranking = level[anchor, label] * centerness[start:stop].sigmoid()[anchor]
        ranking, best = ranking.topk(min(settings.candidates_per_level, len(ranking)))
        found.append((anchor[best] + start, label[best], ranking.sqrt()))
        start = stop
    anchor, label, score = (torch.cat(part) for part in zip(*found, strict=True))
    return anchor, label, score
