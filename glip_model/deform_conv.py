"""Modulated deformable 3 x 3 convolution over a whole feature pyramid, in plain torch (Deformable ConvNets v2, eq. 1).

Shape letters: B images, M cells of all input levels, n output cells of all levels, C channels.
Maps are rows, ``(B, M, C)``: levels one after the other, each row-major. A sample at a fractional place is a weighted
sum of four rows, so a gather with weights (``embedding_bag``) does the sampling of all levels in one kernel, and one
product with the ``(9 C, C_out)`` kernel does the convolution.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from glip_model.layout import CELLS, joined, linear, place, room_for, slices

# In training steps are longer: the backward pass of each adds up a gradient as large as the whole table of rows.
CELLS_WITH_GRADIENT = 16_384

LevelSizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SamplingGrid:
    """Where each output cell samples before offsets: all ``(n, 1)`` but ``kernel_y``, ``kernel_x`` ``(9,)``.

    ``y`` and ``x`` are the cell's centre in its input level, in cells of that level; ``height`` and ``width`` are that
    level's size and ``start`` the row at which it begins.
    """

    y: Tensor
    x: Tensor
    height: Tensor
    width: Tensor
    start: Tensor
    kernel_y: Tensor
    kernel_x: Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept tensors serve training too
def sampling_grid(
    output_sizes: LevelSizes, input_sizes: LevelSizes, starts: tuple[int, ...], stride: int, device: torch.device
) -> SamplingGrid:
    """Geometry of a 3 x 3 convolution with padding 1: output level i reads the input level of the same position.

    Args:
        output_sizes: (height, width) of each output level.
        input_sizes: (height, width) of the level that each of them reads.
        starts: first row of each of those input levels.
        stride: input cells per output cell.
        device: where the tensors live.
    """
    columns: list[list[Tensor]] = [[], [], [], [], []]
    for (oh, ow), (h, w), start in zip(output_sizes, input_sizes, starts, strict=True):
        y, x = torch.meshgrid(torch.arange(oh), torch.arange(ow), indexing="ij")
        level = (y.flatten() * stride, x.flatten() * stride, *(torch.full((oh * ow,), v) for v in (h, w, start)))
        for column, values in zip(columns, level, strict=True):
            column.append(values)
    y, x, height, width, first = (torch.cat(column).unsqueeze(1).to(device) for column in columns)
    k = torch.arange(9, device=device)
    return SamplingGrid(y.float(), x.float(), height, width, first, (k // 3 - 1).float(), (k % 3 - 1).float())


def _corners(place: Tensor, size: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Split fractional places ``(B, n, 9)`` into the two neighbours' indices and weights; weight 0 outside."""
    low = place.floor()
    share = place - low
    # Whole numbers are clamped, not fractions: a place that is NaN then reads some row with a weight that is NaN.
    first, last = low.to(torch.int32), (size - 1).to(torch.int32)
    indices, weights = [], []
    for index, weight in ((first, 1 - share), (first + 1, share)):
        nearest = torch.minimum(index.clamp(min=0), last)
        indices.append(nearest)
        weights.append(weight * (nearest == index))
    return indices, weights


def sampling_table(offsets: Tensor, masks: Tensor, grid: SamplingGrid, num_rows: int) -> tuple[Tensor, Tensor]:
    """Rows to gather and their weights for every output cell and kernel point.

    Args:
        offsets: ``(B, n, 18)``; kernel point k moves by (dy, dx) = channels 2k, 2k + 1, in input cells.
        masks: ``(B, n, 9)``, factors of the samples.
        grid: geometry of the n output cells.
        num_rows: M, the rows of one image.

    Returns:
        int32 indices and weights, both ``(B * n * 9, 4)``.
    """
    offsets, masks = offsets.float(), masks.float()
    rows, wy = _corners(grid.y + grid.kernel_y + offsets[..., 0::2], grid.height)  # (B, n, 9) each
    columns, wx = _corners(grid.x + grid.kernel_x + offsets[..., 1::2], grid.width)
    first = torch.arange(len(offsets), device=offsets.device, dtype=torch.int32).view(-1, 1, 1) * num_rows
    begins = [(first + grid.start + row * grid.width).to(torch.int32) for row in rows]
    wy = [weight * masks for weight in wy]
    indices = torch.stack([begin + column for begin in begins for column in columns], -1)
    weights = torch.stack([v * h for v in wy for h in wx], -1)
    return indices.view(-1, 4), weights.view(-1, 4)


def weighted_rows(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sum of a few rows of ``table (M, C)`` each: ``indices`` and ``weights`` ``(N, k)`` to ``(N, C)``."""
    return F.embedding_bag(indices, table, per_sample_weights=weights, mode="sum")


def deform_conv(rows: Tensor, indices: Tensor, weights: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Sample and multiply.

    Args:
        rows: ``(B, M, C)``.
        indices, weights: of :func:`sampling_table`, ``(B * n * 9, 4)``.
        kernel: ``(C_out, 9 * C)``, kernel point by kernel point.
        bias: ``(C_out,)``.

    Returns:
        ``(B, n, C_out)``.
    """
    B, _, C = rows.shape
    table = rows.reshape(-1, C)
    weights = weights.to(rows.dtype)
    cells = len(indices) // 9
    parts = slices(cells, rows.device, CELLS_WITH_GRADIENT if torch.is_grad_enabled() else CELLS)

    def convolved(part: slice) -> Tensor:
        points = slice(9 * part.start, 9 * part.stop)
        samples = weighted_rows(table, indices[points], weights[points])  # (cells * 9, C)
        return linear(samples.view(1, -1, 9 * C), kernel, bias, place(room, part))

    room = room_for(rows[:1], cells, len(kernel))
    return joined(map(convolved, parts), room).view(B, -1, len(kernel))
