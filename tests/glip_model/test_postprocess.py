import numpy as np
import pytest
import torch
from torch import Tensor

from glip_model.anchors import grid_anchors
from glip_model.box_ops import nms
from glip_model.postprocess import (
    Detections,
    PostprocessSettings,
    agreeing,
    detect_boxes,
    label_scores,
    voted_boxes,
)
from tests.golden.cases import FOLDER, read_case

SIZES = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]
ANCHORS = grid_anchors(SIZES)
CELLS = sum(len(level) for level in ANCHORS)


def find(probabilities: Tensor, settings: PostprocessSettings | None = None, centerness: float = 50.0) -> Detections:
    """Detect in one 256 x 320 image where every anchor predicts itself."""
    (found,) = detect_boxes(
        probabilities[None],
        torch.zeros(1, CELLS, 4),
        torch.full((1, CELLS), centerness),
        anchors=ANCHORS,
        image_sizes_hw=[(256, 320)],
        settings=settings or PostprocessSettings(),
    )
    return found


def test_the_official_head_outputs_become_the_official_detections() -> None:
    case = read_case("tiny_p3")
    with np.load(FOLDER / "tiny_p3.full.npz") as arrays:
        levels = {name: torch.from_numpy(arrays[name]) for name in arrays if name.startswith("head.")}
    logits = torch.cat([levels[f"head.dot_product_logits.p{level}"] for level in range(3, 8)], dim=1)
    deltas = [levels[f"head.bbox_reg.p{level}"].flatten(2).transpose(1, 2) for level in range(3, 8)]
    centerness = [levels[f"head.centerness.p{level}"].flatten(1) for level in range(3, 8)]
    found = detect_boxes(
        label_scores(logits, case.label_tokens),
        torch.cat(deltas, dim=1),
        torch.cat(centerness, dim=1),
        anchors=ANCHORS,
        image_sizes_hw=[(224, 320), (256, 192)],
        settings=PostprocessSettings(),
    )
    for image, expected in zip(found, case.data["detections"], strict=True):
        assert len(image.scores) == expected["n"]
        torch.testing.assert_close(image.scores, torch.tensor(expected["scores"]), atol=1e-6, rtol=0)
        torch.testing.assert_close(image.boxes_xyxy, torch.tensor(expected["boxes"]), atol=1e-3, rtol=0)
        assert (image.labels + 1).tolist() == expected["labels"]


def test_a_label_scores_the_mean_of_its_tokens_probabilities() -> None:
    logits = torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(0))
    tokens = [[1], [3, 4, 5], [7, 2]]
    expected = torch.stack([logits[..., own].sigmoid().mean(dim=-1) for own in tokens], dim=-1)
    torch.testing.assert_close(label_scores(logits, tokens), expected)


def test_half_precision_logits_are_scored_in_float32() -> None:
    assert label_scores(torch.zeros(1, 4, dtype=torch.bfloat16), [[0], [1, 2]]).dtype == torch.float32


def test_no_labels_have_no_scores() -> None:
    assert label_scores(torch.zeros(5, 4), []).shape == (5, 0)
    assert len(find(torch.zeros(CELLS, 0)).scores) == 0


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[1], []], "label 1 owns no token"),
        ([[4]], "label 0 owns a token outside the 4 tokens"),
        ([[1], [-1]], "label 1 owns a token outside"),
    ],
)
def test_labels_that_the_caption_does_not_name_are_refused(tokens: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_scores(torch.zeros(3, 4), tokens)


def test_the_reported_score_is_the_geometric_mean_of_probability_and_centerness() -> None:
    probabilities = torch.zeros(CELLS, 2)
    probabilities[1400, 1] = 0.36
    found = find(probabilities, centerness=0.0)
    assert found.labels.tolist() == [1]
    assert found.scores.item() == pytest.approx((0.36 * 0.5) ** 0.5)


def test_the_threshold_applies_before_the_centerness() -> None:
    probabilities = torch.zeros(CELLS, 1)
    probabilities[0], probabilities[1279] = 0.05, 0.0501
    found = find(probabilities, centerness=-20.0)
    assert len(found.scores) == 1
    assert found.scores.item() < 1e-4


def test_boxes_are_clipped_to_the_image_and_best_comes_first() -> None:
    probabilities = torch.zeros(CELLS, 1)
    probabilities[0], probabilities[1279] = 0.3, 0.6
    found = find(probabilities)
    assert found.boxes_xyxy.tolist() == [[284.0, 220.0, 319.0, 255.0], [0.0, 0.0, 35.0, 35.0]]
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.3]).sqrt())


def test_one_place_may_carry_several_labels() -> None:
    probabilities = torch.zeros(CELLS, 3)
    probabilities[500] = torch.tensor([0.2, 0.9, 0.4])
    assert find(probabilities).labels.tolist() == [1, 2, 0]


def test_each_level_sends_only_its_best_candidates() -> None:
    probabilities = torch.zeros(CELLS, 1)
    probabilities[:1280, 0] = torch.linspace(0.9, 0.1, 1280)
    probabilities[1280:1600, 0] = torch.linspace(0.08, 0.06, 320)
    settings = PostprocessSettings(candidates_per_level=5, nms_threshold=1.0)
    squares = find(probabilities, settings).scores.square()
    assert len(squares) == 10
    assert (squares[:5] > 0.89).all()
    assert (squares[5:] < 0.081).all()


def test_boxes_that_tie_with_the_last_allowed_one_stay() -> None:
    probabilities = torch.zeros(CELLS, 1)
    probabilities[[0, 8, 16], 0] = torch.tensor([0.5, 0.9, 0.5])
    assert len(find(probabilities, PostprocessSettings(max_detections=2)).scores) == 3
    assert len(find(probabilities, PostprocessSettings(max_detections=1)).scores) == 1


def test_nothing_above_the_threshold_gives_no_detections() -> None:
    found = find(torch.zeros(CELLS, 2))
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def moved(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, power: float = 8.0) -> Tensor:
    return voted_boxes(boxes, scores, kept, agreeing(boxes, scores, labels, kept, 0.6), power)


def test_a_box_lies_where_those_that_agree_with_it_lie_in_the_mean() -> None:
    boxes = torch.tensor([[0.0, 0, 99, 99], [8, 0, 107, 99], [40, 0, 139, 99], [0, 8, 99, 107]])
    scores, labels = torch.tensor([0.8, 0.4, 0.8, 0.8]), torch.tensor([0, 0, 0, 1])
    voted = moved(boxes, scores, labels, torch.tensor([0, 2, 3]), power=2.0)
    # A quarter of the best one's vote; what overlaps less, or has another label, has none.
    torch.testing.assert_close(voted[0], (boxes[0] + boxes[1] / 4) / 1.25)
    torch.testing.assert_close(voted[1:], boxes[2:])


def test_low_scores_to_a_high_power_still_vote() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 99, 99], [2, 0, 101, 99]]), torch.full((2,), 1e-6)
    labels = torch.zeros(2, dtype=torch.int64)
    voted = moved(boxes, scores, labels, torch.tensor([0]))
    torch.testing.assert_close(voted, boxes.mean(dim=0, keepdim=True))


def test_what_another_objects_box_suppressed_does_not_draw_a_weaker_neighbour_to_it() -> None:
    boxes = torch.tensor([[0.0, 0, 99, 99], [20, 0, 119, 99], [40, 0, 139, 99]])
    scores, labels = torch.tensor([0.9, 0.8, 0.3]), torch.zeros(3, dtype=torch.int64)
    kept = nms(boxes, scores, labels, 0.6)
    assert kept.tolist() == [0, 2]
    voted = moved(boxes, scores, labels, kept)
    torch.testing.assert_close(voted[1], boxes[2])
    assert voted[0, 0] > 0


def test_voting_moves_boxes_and_leaves_their_number_scores_and_labels() -> None:
    probabilities = torch.rand(CELLS, 2, generator=torch.Generator().manual_seed(3))
    official, voted = (find(probabilities, PostprocessSettings(voting_power=power)) for power in (None, 8.0))
    torch.testing.assert_close(voted.scores, official.scores)
    assert torch.equal(voted.labels, official.labels)
    assert not torch.equal(voted.boxes_xyxy, official.boxes_xyxy)
