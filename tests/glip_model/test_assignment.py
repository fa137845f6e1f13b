import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glip_model.anchors import grid_anchors
from glip_model.assignment import Assignment, assign_anchors
from glip_model.box_ops import box_iou

ANCHORS = grid_anchors([(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)])  # a 96 x 128 image
CELLS = sum(len(level) for level in ANCHORS)


def assign(*images: list[list[float]]) -> Assignment:
    """Assign the boxes of each image, in float64 so that the loop below cannot differ by rounding."""
    boxes = torch.tensor([box for image in images for box in image], dtype=torch.float64).reshape(-1, 4)
    owner = torch.arange(len(images)).repeat_interleave(torch.tensor([len(image) for image in images]))
    return assign_anchors([level.double() for level in ANCHORS], boxes, owner, len(images))


def _assign_one_by_one(boxes: list[list[float]]) -> dict[int, int]:
    """Anchor -> box in one image, by loops over boxes, levels and candidates."""
    taken: dict[int, tuple[float, int]] = {}
    for number, box in enumerate(boxes):
        target = torch.tensor(box, dtype=torch.float64)
        middle = (target[:2] + target[2:]) / 2
        candidates: list[tuple[int, Tensor, Tensor]] = []
        start = 0
        for level in ANCHORS:
            centres = (level[:, :2] + level[:, 2:]).double() / 2
            near = (centres - middle).square().sum(1).sqrt().topk(min(9, len(level)), largest=False).indices
            overlaps = box_iou(level.double()[near], target, border=1.0)
            candidates += zip((near + start).tolist(), overlaps, centres[near], strict=True)
            start += len(level)
        overlaps = torch.stack([overlap for _, overlap, _ in candidates])
        threshold = overlaps.mean() + overlaps.std()
        for anchor, overlap, (x, y) in candidates:
            inside = min(x - target[0], y - target[1], target[2] - x, target[3] - y) > 0.01
            if inside and overlap >= threshold and overlap.item() > taken.get(anchor, (-1.0, 0))[0]:
                taken[anchor] = (overlap.item(), number)
    return {anchor: number for anchor, (_, number) in taken.items()}


@st.composite
def scene(draw: st.DrawFn) -> list[list[float]]:
    size = st.floats(2, 90)
    rows = draw(st.lists(st.tuples(st.floats(-10, 110), st.floats(-10, 80), size, size), max_size=6))
    return [[x, y, x + width, y + height] for x, y, width, height in rows]


@settings(max_examples=60, deadline=None)
@given(scene(), scene())
def test_assigning_at_once_equals_assigning_one_by_one(first: list[list[float]], second: list[list[float]]) -> None:
    found = assign(first, second)
    for image, (boxes, offset) in enumerate(((first, 0), (second, len(first)))):
        mine = found.image == image
        pairs = dict(zip(found.anchor[mine].tolist(), (found.box[mine] - offset).tolist(), strict=True))
        assert len(pairs) == int(mine.sum())
        assert pairs == _assign_one_by_one(boxes)


def test_positives_come_by_image_then_anchor() -> None:
    found = assign([[10.0, 10.0, 60.0, 60.0]], [[30.0, 20.0, 90.0, 80.0], [5.0, 5.0, 30.0, 30.0]])
    places = (found.image * CELLS + found.anchor).tolist()
    assert places == sorted(set(places))
    assert set(found.image.tolist()) == {0, 1}


def test_an_anchor_wanted_twice_goes_to_the_larger_overlap() -> None:
    loose, tight = [12.0, 12.0, 92.0, 92.0], [20.0, 20.0, 83.0, 83.0]
    alone = set(assign([tight]).anchor.tolist())
    together = assign([loose, tight])
    assert alone & set(assign([loose]).anchor.tolist())
    anchors = torch.cat(ANCHORS).double()[together.anchor]
    both = box_iou(anchors[:, None], torch.tensor([loose, tight], dtype=torch.float64), border=1.0)
    contested = torch.tensor([anchor in alone for anchor in together.anchor.tolist()])
    assert (both.argmax(dim=1)[contested] == together.box[contested]).all()


def test_of_two_equal_boxes_the_first_gets_all_anchors() -> None:
    box = [20.0, 20.0, 83.0, 83.0]
    found = assign([box, box])
    assert found.box.tolist() == [0] * len(assign([box]).anchor)


@pytest.mark.parametrize("images", [[[]], [[], []]], ids=["one image", "two images"])
def test_images_without_boxes_have_no_positives(images: list[list[list[float]]]) -> None:
    assert len(assign(*images).anchor) == 0


def test_an_empty_image_leaves_the_others_alone() -> None:
    box = [20.0, 20.0, 83.0, 83.0]
    found = assign([], [box], [])
    assert found.image.tolist() == [1] * len(found.image)
    assert found.anchor.tolist() == assign([box]).anchor.tolist()


def test_a_box_between_all_centres_gets_no_anchor() -> None:
    assert len(assign([[4.0, 4.0, 6.0, 6.0]]).anchor) == 0
