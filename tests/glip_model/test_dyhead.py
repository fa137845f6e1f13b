import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glip_model import dyhead
from glip_model.deform_conv import LevelSizes
from glip_model.dyhead import DynamicConv, NormedDeformConv, flat_offsets, upsampling
from tests.glip_model import reference
from tests.glip_model.random_weights import randomise

PYRAMIDS: list[LevelSizes] = [
    ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2)),
    ((9, 13), (5, 7), (3, 4), (2, 2), (1, 1)),
    ((1, 40), (1, 20), (1, 10), (1, 5), (1, 3)),
]


def _dynamic_conv(channels: int = 16) -> DynamicConv:
    block = DynamicConv(channels, 8)
    randomise(block)
    return block


def _cells(sizes: LevelSizes, channels: int = 16) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, sum(h * w for h, w in sizes), channels)


def _plain(block: DynamicConv, x: Tensor, sizes: LevelSizes) -> Tensor:
    cells = x.split([h * w for h, w in sizes], 1)
    levels = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(cells, sizes, strict=True)]
    return torch.cat([y.flatten(2).transpose(1, 2) for y in reference.dynamic_conv(block, levels)], 1)


@pytest.mark.parametrize("sizes", PYRAMIDS)
def test_the_block_equals_the_plain_one(sizes: LevelSizes) -> None:
    block, x = _dynamic_conv(), _cells(sizes)
    with torch.no_grad():
        torch.testing.assert_close(block(x.clone(), sizes), _plain(block, x, sizes), atol=5e-5, rtol=0)


def test_parts_that_fit_in_the_cache_do_not_change_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = _dynamic_conv(), _cells(PYRAMIDS[0])
    with torch.no_grad():
        whole = block(x, PYRAMIDS[0])
        monkeypatch.setattr(dyhead, "slices", lambda length, _: [slice(i, i + 5) for i in range(0, length, 5)])
        torch.testing.assert_close(block(x, PYRAMIDS[0]), whole, atol=1e-5, rtol=0)


def test_gradients_of_the_block_equal_the_plain_ones() -> None:
    sizes = PYRAMIDS[0]
    block, x = _dynamic_conv(), _cells(sizes).requires_grad_()
    inputs = [x, *block.parameters()]
    found = torch.autograd.grad(block(x, sizes).sin().sum(), inputs)
    expected = torch.autograd.grad(_plain(block, x, sizes).sin().sum(), inputs)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-3 * max(1.0, float(plain.abs().max())), rtol=0)


@pytest.mark.parametrize("groups", [2, 4, 16])
def test_folded_group_norm_equals_group_norm(groups: int) -> None:
    conv = NormedDeformConv(16, groups)
    randomise(conv)
    x = 3 + 2 * torch.randn(2, 30, 16)
    with torch.no_grad():
        term = conv.normalise(x)
        expected = F.group_norm(x.transpose(1, 2), groups, conv.norm_weight, conv.norm_bias).transpose(1, 2)
        found = term.rows * term.factor.unsqueeze(1) + term.summand.unsqueeze(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(term.mean, expected.mean(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", [(10, 12), (9, 11), (5, 6), (17, 6), (40, 1), (1, 1), (100, 136)])
@pytest.mark.parametrize("source", [(5, 6), (1, 1), (1, 6)])
def test_enlarging_equals_interpolation_part_by_part_and_its_mean_comes_from_the_source(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, source[0] * source[1], 4)
    shown = F.interpolate(rows.transpose(1, 2).unflatten(2, source), target, mode="bilinear", align_corners=True)
    expected = shown.flatten(2).transpose(1, 2)
    enlarge = upsampling(source, target, rows.device)
    middle = expected.shape[1] // 2
    found = torch.cat([enlarge.part(rows, slice(0, middle)), enlarge.part(rows, slice(middle, None))], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(enlarge.mean(rows), expected.mean(1), atol=1e-5, rtol=0)


def test_offsets_for_the_coarser_level_are_read_as_flat_memory() -> None:
    predicted = torch.arange(27 * 4 * 6.0).view(1, 27, 4, 6)  # the coarser level has 2 * 3 = 6 cells
    found = flat_offsets(predicted, 6)  # (1, 6, 27)
    for channel in range(18):
        assert found[0, :, channel].tolist() == [channel * 6 + cell for cell in range(6)]
    first_mask = 18 * 24
    for point in range(9):
        expected = torch.sigmoid(torch.arange(first_mask + point * 6.0, first_mask + point * 6.0 + 6))
        torch.testing.assert_close(found[0, :, 18 + point], expected)
