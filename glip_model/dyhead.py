"""The dynamic head of GLIP's tower: deformable convolutions across levels, joined by attention over scales.

Shape letters: B images, M cells of all five levels (P3 first, row-major), C channels, G groups of the GroupNorm.
Follows Dynamic Head (CVPR 2021) as GLIP computes it (SPEC 5c). GroupNorm, the scalar attention and the two lines of the
dynamic ReLU are all affine per image and channel, so they are gathered into one factor and one summand per channel and
each map is read once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glip_model.deform_conv import LevelSizes, deform_conv, sampling_grid, sampling_table, weighted_rows
from glip_model.layout import convolved, joined, place, room_for, slices


def hard_sigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


@dataclass(frozen=True)
class Upsampling:
    """Bilinear enlargement of a map, ends aligned, as a sum of four of its rows for each new cell.

    Attributes:
        indices: ``(N, 4)`` int32, rows of the source for each of the N cells of the target.
        weights: ``(N, 4)``, how much each of them counts; they sum to one.
        shares: ``(n,)``, how much each of the source's n cells counts in the mean over the target.
    """

    indices: Tensor
    weights: Tensor
    shares: Tensor

    def mean(self, rows: Tensor) -> Tensor:
        """Mean over the target ``(B, C)`` of ``rows (B, n, C)``, without enlarging them."""
        return torch.einsum("bnc,n->bc", rows.float(), self.shares)

    def part(self, rows: Tensor, cells: slice) -> Tensor:
        """Some cells of what ``rows (B, n, C)`` become: ``(B, cells, C)``."""
        B, n, C = rows.shape
        first = torch.arange(B, device=rows.device, dtype=torch.int32).view(-1, 1, 1) * n
        indices = (first + self.indices[cells]).view(-1, 4)
        weights = self.weights[cells].to(rows.dtype).repeat(B, 1)
        return weighted_rows(rows.reshape(-1, C), indices, weights).view(B, -1, C)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept tensors serve training too
def upsampling(source: tuple[int, int], target: tuple[int, int], device: torch.device) -> Upsampling:
    """Plan the enlargement of a map of (height, width) ``source`` to ``target``."""
    (y, wy), (x, wx) = (_neighbours(s, t) for s, t in zip(source, target, strict=True))
    rows = y[:, None, :, None] * source[1] + x[None, :, None, :]  # (H, W, 2, 2)
    weights = wy[:, None, :, None] * wx[None, :, None, :]
    indices, weights = rows.reshape(-1, 4), weights.reshape(-1, 4)
    shares = torch.zeros(source[0] * source[1], dtype=torch.float64)  # a sum of very many
    shares.index_add_(0, indices.flatten(), weights.flatten().double() / len(weights))
    return Upsampling(indices.int().to(device), weights.to(device), shares.float().to(device))


def _neighbours(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Both neighbours of each place of the target on one axis, and their weights: ``(target, 2)`` each."""
    place = torch.linspace(0, source - 1, target)
    low = place.long()
    share = place - low
    return torch.stack([low, (low + 1).clamp(max=source - 1)], -1), torch.stack([1 - share, share], -1)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(B, C)`` over the cells of ``rows (B, n, C)``, in fp32.

    The mean first, then squares around it: as exact as ``var_mean``, and eight times as fast down the columns.
    """
    rows = rows.float()
    mean = rows.mean(1)
    squares = [(rows[:, part] - mean.unsqueeze(1)).square().sum(1) for part in slices(rows.shape[1], rows.device)]
    return mean, torch.stack(squares).sum(0) / rows.shape[1]


class Term(NamedTuple):
    """One summand of a level before its affine parts: ``rows (B, n, C)``, enlarged where told; the rest ``(B, C)``.

    Its value is ``rows * factor + summand``; ``mean`` is that value's mean over the level's cells.
    """

    rows: Tensor
    factor: Tensor
    summand: Tensor
    mean: Tensor
    enlarge: Upsampling | None = None

    def part(self, cells: slice) -> Tensor:
        """The rows of some of the level's cells."""
        return self.rows[:, cells] if self.enlarge is None else self.enlarge.part(self.rows, cells)


class NormedDeformConv(nn.Module):
    """Parameters of one deformable convolution and the GroupNorm behind it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(channels, 9 * channels))  # (C_out, kernel point, C)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm_weight = nn.Parameter(torch.ones(channels))
        self.norm_bias = nn.Parameter(torch.zeros(channels))

    def normalise(self, x: Tensor, enlarge: Upsampling | None = None) -> Term:
        """GroupNorm of one level ``(B, n, C)`` as factors and summands; ``enlarge`` says how it will be shown."""
        mean, variance = moments(x)  # (B, C)
        mean_of_group = mean.unflatten(1, (self.groups, -1))
        spread = mean_of_group.var(-1, correction=0)
        group_variance = variance.unflatten(1, (self.groups, -1)).mean(-1) + spread  # (B, G)
        scale = (group_variance + 1e-5).rsqrt().unsqueeze(-1)
        factor = (self.norm_weight.view(self.groups, -1) * scale).flatten(1)
        shift = (mean_of_group.mean(-1, keepdim=True) * scale).expand_as(mean_of_group).flatten(1)
        summand = self.norm_bias - shift * self.norm_weight
        shown = mean if enlarge is None else enlarge.mean(x)
        return Term(x, factor, summand, (shown * factor + summand).to(self.bias.dtype), enlarge)


class DynamicConv(nn.Module):
    """One dynamic-head block: spatial, scale and task awareness (SPEC 5c)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.coarser, self.same, self.finer = (NormedDeformConv(channels, groups) for _ in range(3))
        self.offset = nn.Conv2d(channels, 27, 3, padding=1)
        self.scale_attention = nn.Linear(channels, 1)
        self.relu_squeeze = nn.Linear(channels, channels // 4)
        self.relu_expand = nn.Linear(channels // 4, 4 * channels)

    def forward(self, x: Tensor, sizes: LevelSizes) -> Tensor:
        """``(B, M, C)`` of levels with these (height, width) to ``(B, M, C)``."""
        cells = [h * w for h, w in sizes]
        same, finer, coarser = self._convolve(x, sizes, cells)

        def levels() -> Iterator[Tensor]:
            for i, size in enumerate(sizes):
                terms = [self.same.normalise(same[i])]
                if i > 0:
                    terms.append(self.finer.normalise(finer[i - 1]))
                if i + 1 < len(sizes):
                    terms.append(self.coarser.normalise(coarser[i], upsampling(sizes[i + 1], size, x.device)))
                here = None if room is None else room.split(cells, 1)[i]
                yield from self._join(terms, cells[i], here)

        room = room_for(x, *x.shape[1:])
        return joined(levels(), room)

    def _convolve(self, x: Tensor, sizes: LevelSizes, cells: list[int]) -> tuple[tuple[Tensor, ...], ...]:
        """The three convolutions of all levels: of the level itself, the finer one (stride 2), the coarser one."""
        maps = [
            convolved(self.offset, level.transpose(1, 2).unflatten(2, size))  # (B, 27, h, w)
            for level, size in zip(x.split(cells, 1), sizes, strict=True)
        ]
        rows = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1).float()  # (B, M, 27)
        offsets, masks = rows[..., :18], rows[..., 18:].sigmoid()
        # The official kernel reads a coarser level with the offsets of the finer one as flat memory, channel after
        # channel, in the strides of the coarser size. Trained weights rely on it (SPEC 5c, "biggest surprise").
        borrowed = torch.cat([flat_offsets(m, n) for m, n in zip(maps, cells[1:], strict=False)], 1).float()

        starts = [0, *accumulate(cells)]
        first = cells[0]
        plans = (
            (self.same, offsets, masks, (sizes, sizes, tuple(starts[:-1]), 1)),
            (self.finer, offsets[:, first:], masks[:, first:], (sizes[1:], sizes[:-1], tuple(starts[:-2]), 2)),
            (self.coarser, borrowed[..., :18], borrowed[..., 18:], (sizes[1:], sizes[1:], tuple(starts[1:-1]), 1)),
        )
        results = []
        for conv, offset, mask, geometry in plans:
            indices, weights = sampling_table(offset, mask, sampling_grid(*geometry, x.device), x.shape[1])
            out = deform_conv(x, indices, weights, conv.weight, conv.bias)
            results.append(out.split(cells if conv is self.same else cells[1:], 1))
        return tuple(results)

    def _join(self, terms: list[Term], cells: int, room: Tensor | None) -> Iterator[Tensor]:
        """Attention over the terms, their mean, and the dynamic ReLU: ``(B, n, C)`` in parts that fit in the cache."""
        shares = [hard_sigmoid(F.relu(self.scale_attention(t.mean))) / len(terms) for t in terms]  # (B, 1)
        mean = torch.stack([share * t.mean for share, t in zip(shares, terms, strict=True)]).sum(0)
        theta = hard_sigmoid(self.relu_expand(F.relu(self.relu_squeeze(mean))))
        a1, b1, a2, b2 = (part.unsqueeze(1) for part in (theta - 0.5).chunk(4, -1))  # (B, 1, C)
        summand = torch.stack([share * t.summand for share, t in zip(shares, terms, strict=True)]).sum(0).unsqueeze(1)
        factors = [(share * t.factor).unsqueeze(1).to(t.rows.dtype) for share, t in zip(shares, terms, strict=True)]
        for part in slices(cells, summand.device):
            out = summand
            for term, factor in zip(terms, factors, strict=True):
                out = torch.addcmul(out, term.part(part), factor)
            lines = torch.addcmul(b1, out, 2 * a1 + 1), torch.addcmul(b2, out, 2 * a2)
            yield torch.maximum(*lines, out=place(room, part)).to(self.relu_expand.weight.dtype)


def flat_offsets(offset_map: Tensor, cells: int) -> Tensor:
    """Read a finer level's ``(B, 27, H, W)`` as the offsets and masks of ``cells`` coarser cells: ``(B, cells, 27)``.

    Offsets are the first 18 * cells numbers of the 18 offset channels laid out flat, masks the first 9 * cells of the
    9 mask channels.
    """
    offsets = offset_map[:, :18].flatten(1)[:, : 18 * cells].unflatten(1, (18, cells))
    masks = offset_map[:, 18:].flatten(1)[:, : 9 * cells].unflatten(1, (9, cells)).sigmoid()
    return torch.cat([offsets, masks], 1).transpose(1, 2)
