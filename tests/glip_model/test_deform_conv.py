from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glip_model.deform_conv import LevelSizes, deform_conv, sampling_grid, sampling_table
from glip_model.layout import CELLS
from tests.glip_model import reference

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

CPU = torch.device("cpu")


def _rows(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h w, C)


def _maps(rows: Tensor, size: tuple[int, int]) -> Tensor:
    maps: Tensor = rows.transpose(1, 2).unflatten(2, size)
    return maps


def _convolve(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """The fast function on maps, with the arguments of its plain twin."""
    size, out = (x.shape[2], x.shape[3]), (offset.shape[2], offset.shape[3])
    grid = sampling_grid((out,), (size,), (0,), stride, CPU)
    indices, weights = sampling_table(_rows(offset), _rows(mask), grid, size[0] * size[1])
    kernel = weight.permute(0, 2, 3, 1).flatten(1)
    return _maps(deform_conv(_rows(x), indices, weights, kernel, bias), out)


def _inputs(size: tuple[int, int], out: tuple[int, int], spread: float) -> Inputs:
    torch.manual_seed(0)
    return (
        torch.randn(2, 6, *size),
        spread * torch.randn(2, 18, *out),
        torch.rand(2, 9, *out),
        torch.randn(5, 6, 3, 3),
        torch.randn(5),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_a_plain_convolution(stride: int) -> None:
    out = (9, 11) if stride == 1 else (5, 6)
    x, offset, mask, weight, bias = _inputs((9, 11), out, spread=0.0)
    found = _convolve(x, offset, torch.ones_like(mask), weight, bias, stride)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, stride=stride, padding=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0])
@pytest.mark.parametrize(("size", "out", "stride"), [((9, 11), (9, 11), 1), ((9, 11), (5, 6), 2), ((1, 1), (1, 1), 1)])
def test_it_equals_the_plain_twin(size: tuple[int, int], out: tuple[int, int], stride: int, spread: float) -> None:
    inputs = _inputs(size, out, spread)
    expected = reference.deform_conv(*inputs, stride)
    torch.testing.assert_close(_convolve(*inputs, stride), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("place", [-1.0, -0.5, 8.0, 8.5, 9.0])
def test_samples_fade_out_at_the_border_as_in_the_plain_twin(place: float) -> None:
    x, offset, mask, weight, bias = _inputs((9, 9), (9, 9), spread=0.0)
    rows = torch.arange(9.0).view(9, 1)
    kernel_rows = torch.arange(9).view(9, 1, 1) // 3 - 1
    offset[:, 0::2] = place - rows - kernel_rows  # every sample of every cell lies in this row
    expected = reference.deform_conv(x, offset, mask, weight, bias)
    torch.testing.assert_close(_convolve(x, offset, mask, weight, bias), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("far", [1e3, -1e3, 1e9, -1e9])
def test_samples_far_out_of_the_map_are_zero(far: float) -> None:
    x, offset, mask, weight, bias = _inputs((9, 11), (9, 11), spread=1.0)
    found = _convolve(x, torch.full_like(offset, far), mask, weight, bias)
    torch.testing.assert_close(found, bias.view(1, -1, 1, 1).expand_as(found))


@pytest.mark.parametrize("place", [float("nan"), float("inf"), -float("inf")])
def test_a_place_that_is_no_number_makes_the_output_no_number(place: float) -> None:
    x, offset, mask, weight, bias = _inputs((4, 4), (4, 4), spread=1.0)
    offset[1, :, 2, 3] = place
    found = _convolve(x, offset, mask, weight, bias)
    assert found[1, :, 2, 3].isnan().all()
    assert found.isnan().sum() == len(bias)


def test_more_cells_than_a_chunk_equal_the_plain_twin() -> None:
    inputs = _inputs((40, 53), (40, 53), spread=3.0)
    assert inputs[1][:, 0].numel() > 2 * CELLS
    torch.testing.assert_close(_convolve(*inputs), reference.deform_conv(*inputs), atol=2e-5, rtol=1e-5)


def test_levels_side_by_side_do_not_see_each_other() -> None:
    sizes: LevelSizes = ((6, 8), (3, 4))
    inputs = [_inputs(size, size, spread=4.0) for size in sizes]
    rows, offsets, masks = (torch.cat([_rows(level[i]) for level in inputs], 1) for i in range(3))
    weight, bias = inputs[0][3:]
    grid = sampling_grid(sizes, sizes, (0, 48), 1, CPU)
    indices, weights = sampling_table(offsets, masks, grid, 60)
    together = deform_conv(rows, indices, weights, weight.permute(0, 2, 3, 1).flatten(1), bias)
    alone = [_rows(_convolve(x, offset, mask, weight, bias)) for x, offset, mask, _, _ in inputs]
    torch.testing.assert_close(together, torch.cat(alone, 1), atol=1e-5, rtol=1e-5)


def test_the_plain_twin_has_the_gradients_of_its_own_differences() -> None:
    torch.manual_seed(0)
    shapes = [(1, 2, 4, 5), (1, 18, 4, 5), (1, 9, 4, 5), (3, 2, 3, 3), (3,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(reference.deform_conv, inputs)


@pytest.mark.parametrize("spread", [0.5, 20.0])
def test_gradients_equal_those_of_the_plain_twin(spread: float) -> None:
    def gradients(convolve: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [x.to(dtype).requires_grad_() for x in _inputs((9, 11), (5, 6), spread)]
        return torch.autograd.grad(convolve(*inputs, stride=2).sin().sum(), inputs)

    expected = gradients(reference.deform_conv, torch.float64)
    for ours, plain in zip(gradients(_convolve, torch.float32), expected, strict=True):
        torch.testing.assert_close(ours.double(), plain, atol=5e-4, rtol=1e-3)
