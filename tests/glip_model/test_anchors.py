import pytest
import torch

from glip_model.anchors import LEVEL_STRIDES, grid_anchors
from glip_model.box_ops import box_centres
from tests.golden.cases import read_json

SIZES = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]


def test_anchors_equal_the_official_ones() -> None:
    expected = read_json("tiny_p3")["anchors"]
    for level, anchors in zip(("p3", "p4", "p5", "p6", "p7"), grid_anchors(SIZES), strict=True):
        assert len(anchors) == expected[level]["n"]
        assert anchors[0].tolist() == expected[level]["first"]
        assert anchors[-1].tolist() == expected[level]["last"]


def test_cells_follow_row_by_row_one_stride_apart() -> None:
    for (height, width), stride, anchors in zip(SIZES, LEVEL_STRIDES, grid_anchors(SIZES), strict=True):
        centres = box_centres(anchors).reshape(height, width, 2)
        first = (stride - 1) / 2
        torch.testing.assert_close(centres[0, :, 0], torch.arange(width) * stride + first)
        torch.testing.assert_close(centres[:, 0, 1], torch.arange(height) * stride + first)


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="5 feature levels, got 4"):
        grid_anchors(SIZES[:4])
