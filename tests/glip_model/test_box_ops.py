import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from backend.domain.geometry import Box, iou
from glip_model.box_ops import (
    box_area,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    generalized_box_iou,
    nms,
)

coordinate = st.floats(-2000, 2000, width=32)


@st.composite
def boxes(draw: st.DrawFn, smallest: float = 0.0) -> tuple[float, float, float, float]:
    x1, y1 = draw(coordinate), draw(coordinate)
    width, height = draw(st.floats(smallest, 1500)), draw(st.floats(smallest, 1500))
    return x1, y1, x1 + width, y1 + height


@settings(deadline=None)
@given(boxes(), boxes())
@example((0.0, 0.0, 6.5e-152, 4.8e-224), (0.0, 0.0, 6.5e-152, 4.8e-224))  # the area rounds to 0
def test_overlap_equals_that_of_the_plain_float_geometry(
    first: tuple[float, float, float, float], second: tuple[float, float, float, float]
) -> None:
    found = box_iou(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)).item()
    assert found == pytest.approx(iou(Box(*first), Box(*second)), abs=1e-12)


def test_overlap_of_all_pairs_comes_by_broadcasting() -> None:
    left = torch.tensor([[0.0, 0.0, 4.0, 4.0], [10.0, 0.0, 14.0, 4.0]])
    right = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [50.0, 50.0, 60.0, 60.0]])
    expected = torch.tensor([[1.0, 1 / 3, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(box_iou(left[:, None], right), expected)


def test_counting_the_last_pixel_gives_a_point_box_an_area() -> None:
    point = torch.tensor([3.0, 3.0, 3.0, 3.0])
    pair = torch.tensor([3.0, 3.0, 4.0, 3.0])
    assert box_area(point, border=1.0) == 1
    assert box_iou(point, pair, border=1.0) == 0.5
    assert box_iou(point, pair) == 0


@settings(deadline=None)
@given(boxes(smallest=-0.5), st.tuples(coordinate, coordinate), st.sampled_from([63.0, 127.0, 255.0, 511.0, 1023.0]))
def test_decoding_undoes_encoding(
    box: tuple[float, float, float, float], corner: tuple[float, float], side: float
) -> None:
    target = torch.tensor(box, dtype=torch.float64)
    anchor = torch.tensor((*corner, corner[0] + side, corner[1] + side), dtype=torch.float64)
    torch.testing.assert_close(decode_boxes(encode_boxes(target, anchor), anchor), target, atol=1e-6, rtol=0)


def test_no_offset_stands_for_the_anchor_itself() -> None:
    anchors = torch.tensor([[-28.0, -28.0, 35.0, 35.0], [-56.0, -40.0, 71.0, 87.0]])
    torch.testing.assert_close(decode_boxes(torch.zeros(2, 4), anchors), anchors)


def test_a_decoded_box_grows_at_most_1000_sixteenths() -> None:
    anchor = torch.tensor([0.0, 0.0, 15.0, 15.0])
    x1, y1, x2, y2 = decode_boxes(torch.tensor([0.0, 0.0, 1e4, 1e4]), anchor).tolist()
    assert x2 - x1 + 1 == pytest.approx(1000, rel=1e-5)
    assert y2 - y1 + 1 == pytest.approx(1000, rel=1e-5)


def test_boxes_are_clipped_to_the_last_pixel_of_the_image() -> None:
    clipped = clip_boxes(torch.tensor([[-5.0, -1.0, 400.0, 90.0], [330.0, 250.0, 340.0, 260.0]]), (224, 320))
    assert clipped.tolist() == [[0.0, 0.0, 319.0, 90.0], [319.0, 223.0, 319.0, 223.0]]


def test_boxes_without_a_border_are_clipped_to_the_edge_of_the_image() -> None:
    clipped = clip_boxes(torch.tensor([[-5.0, -1.0, 400.0, 90.0], [330.0, 250.0, 340.0, 260.0]]), (224, 320), border=0)
    assert clipped.tolist() == [[0.0, 0.0, 320.0, 90.0], [320.0, 224.0, 320.0, 224.0]]


def test_generalised_overlap_of_known_pairs() -> None:
    first = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 1.0, 1.0]])
    second = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [9.0, 0.0, 10.0, 1.0]])
    torch.testing.assert_close(generalized_box_iou(first, second), torch.tensor([1.0, 1 / 3, -0.8]))


@settings(deadline=None)
@given(boxes(), boxes(smallest=1.0))
def test_generalised_overlap_never_exceeds_the_overlap(
    first: tuple[float, float, float, float], second: tuple[float, float, float, float]
) -> None:
    one, other = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    value = generalized_box_iou(one, other).item()
    assert -1 - 1e-6 <= value <= box_iou(one, other).item() + 1e-6


def test_a_box_turned_inside_out_has_no_area_and_still_a_gradient() -> None:
    found = torch.tensor([[8.0, 8.0, 2.0, 2.0]], requires_grad=True)
    value = generalized_box_iou(found, torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    assert value.item() == pytest.approx(0, abs=1e-6)
    value.sum().backward()
    assert found.grad is not None
    assert found.grad.isfinite().all()


def _greedy(boxes_xyxy: list[list[float]], scores: list[float], labels: list[int], threshold: float) -> list[int]:
    """Suppression one box at a time, in plain floats."""
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        x1, y1, x2, y2 = boxes_xyxy[index]
        grown = Box(x1, y1, x2 + 1, y2 + 1)
        rivals = [boxes_xyxy[i] for i in kept if labels[i] == labels[index]]
        if all(iou(grown, Box(r[0], r[1], r[2] + 1, r[3] + 1)) <= threshold for r in rivals):
            kept.append(index)
    return kept


@st.composite
def crowded(draw: st.DrawFn) -> tuple[list[list[float]], list[float], list[int]]:
    """Boxes on a small grid with few labels and few different scores: overlaps, chains of them and ties abound."""
    count = draw(st.integers(0, 40))
    small = st.integers(0, 6)
    rows = draw(st.lists(st.tuples(small, small, small, small, small, small), min_size=count, max_size=count))
    found = [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h, _, _ in rows]
    return found, [score / 8 for *_, score, _ in rows], [label % 3 for *_, label in rows]


@settings(max_examples=200, deadline=None)
@given(crowded(), st.sampled_from([0.1, 0.3, 0.6, 0.9]))
def test_suppression_keeps_what_the_greedy_loop_keeps_best_first(
    found: tuple[list[list[float]], list[float], list[int]], threshold: float
) -> None:
    boxes_xyxy, scores, labels = found
    tensor = torch.tensor(boxes_xyxy, dtype=torch.float64).reshape(-1, 4)
    kept = nms(tensor, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), threshold)
    assert kept.tolist() == _greedy(boxes_xyxy, scores, labels, threshold)


def test_suppression_of_many_boxes_equals_the_greedy_loop() -> None:
    boxes_xyxy, scores, labels = _many(900, seed=3)
    kept = nms(boxes_xyxy, scores, labels, 0.6)
    assert kept.tolist() == _greedy(boxes_xyxy.tolist(), scores.tolist(), labels.tolist(), 0.6)


def test_a_long_chain_of_overlaps_keeps_every_other_box() -> None:
    x = torch.arange(600.0, dtype=torch.float64) * 10
    chain = torch.stack((x, torch.zeros_like(x), x + 14, torch.full_like(x, 9)), dim=1)
    kept = nms(chain, torch.linspace(1, 0, 600), torch.zeros(600, dtype=torch.int64), 0.15)
    assert kept.tolist() == list(range(0, 600, 2))


def test_an_overlap_at_the_threshold_is_not_suppressed() -> None:
    pair = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 4.0]])  # overlap 50 / 100
    scores, labels = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    assert nms(pair, scores, labels, 0.5).tolist() == [0, 1]
    assert nms(pair, scores, labels, 0.499).tolist() == [0]


def _many(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 200
    sizes = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60 + 20
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    return torch.cat((corners, corners + sizes), dim=1), scores, labels


def test_encoding_follows_the_published_weights() -> None:
    anchor = torch.tensor([0.0, 0.0, 63.0, 63.0])  # 64 pixels wide, centre 31.5
    box = torch.tensor([0.0, 0.0, 127.0, 31.0])  # 128 x 32 pixels, centre (63.5, 15.5)
    expected = torch.tensor([5.0, -2.5, 5 * math.log(2), -5 * math.log(2)])
    torch.testing.assert_close(encode_boxes(box, anchor), expected)
