"""The dynamic head of GLIP's tower: deformable convolutions across levels, joined by attention over scales.

Shape letters: B images, M cells of all five levels (P3 first, row-major), C channels, G groups of the GroupNorm.
Follows Dynamic Head (CVPR 2021) as GLIP computes it (SPEC 5c). GroupNorm, the scalar attention and the two lines of the
dynamic ReLU are all affine per image and channel, so they are gathered into one factor and one summand per channel and
each map is read once.
"""

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glip_model.deform_conv import CELLS, LevelSizes, deform_conv, sampling_grid, sampling_table


def hard_sigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept tensors serve training too
def _upsampling_weights(source: int, target: int) -> Tensor:
    """How much each of ``source`` cells counts in the mean after linear upsampling to ``target`` (ends aligned)."""
    identity = torch.eye(source).unsqueeze(0)
    return F.interpolate(identity, size=target, mode="linear", align_corners=True)[0].mean(-1)  # (source,)


def upsampled_mean(x: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Mean over cells ``(B, C)`` of what rows ``x (B, h w, C)`` become when upsampled, without upsampling them."""
    wy, wx = (_upsampling_weights(s, t).to(x.device) for s, t in zip(source, target, strict=True))
    return torch.einsum("bnc,n->bc", x.float(), (wy[:, None] * wx).flatten())


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(B, C)`` over the cells of ``rows (B, n, C)``, in fp32.

    The mean first, then squares around it: as exact as ``var_mean``, and eight times as fast down the columns.
    """
    rows = rows.float()
    mean = rows.mean(1)
    squares = [(part - mean.unsqueeze(1)).square().sum(1) for part in rows.split(CELLS, 1)]
    return mean, torch.stack(squares).sum(0) / rows.shape[1]


class Term(NamedTuple):
    """One summand of a level before its affine parts: ``rows (B, n, C)``; the rest ``(B, C)``.

    Its value is ``rows * factor + summand``; ``mean`` is that value's mean over the level's cells.
    """

    rows: Tensor
    factor: Tensor
    summand: Tensor
    mean: Tensor


class NormedDeformConv(nn.Module):
    """Parameters of one deformable convolution and the GroupNorm behind it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(channels, 9 * channels))  # (C_out, kernel point, C)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm_weight = nn.Parameter(torch.ones(channels))
        self.norm_bias = nn.Parameter(torch.zeros(channels))

    def normalise(self, x: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Term:
        """GroupNorm of one level ``(B, n, C)`` as factors and summands; ``target`` is the size it will be shown at."""
        mean, variance = moments(x)  # (B, C)
        mean_of_group = mean.unflatten(1, (self.groups, -1))
        spread = mean_of_group.var(-1, correction=0)
        group_variance = variance.unflatten(1, (self.groups, -1)).mean(-1) + spread  # (B, G)
        scale = (group_variance + 1e-5).rsqrt().unsqueeze(-1)
        factor = (self.norm_weight.view(self.groups, -1) * scale).flatten(1)
        shift = (mean_of_group.mean(-1, keepdim=True) * scale).expand_as(mean_of_group).flatten(1)
        summand = self.norm_bias - shift * self.norm_weight
        shown = mean if source == target else upsampled_mean(x, source, target)
        return Term(x, factor, summand, shown * factor + summand)


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
        outputs = []
        for i, size in enumerate(sizes):
            terms = [self.same.normalise(same[i], size, size)]
            if i > 0:
                terms.append(self.finer.normalise(finer[i - 1], size, size))
            if i + 1 < len(sizes):
                term = self.coarser.normalise(coarser[i], sizes[i + 1], size)
                terms.append(term._replace(rows=upsample(term.rows, sizes[i + 1], size)))
            outputs.extend(self._join(terms))
        return torch.cat(outputs, 1)

    def _convolve(self, x: Tensor, sizes: LevelSizes, cells: list[int]) -> tuple[tuple[Tensor, ...], ...]:
        """The three convolutions of all levels: of the level itself, the finer one (stride 2), the coarser one."""
        maps = [
            self.offset(level.transpose(1, 2).unflatten(2, size))  # (B, 27, h, w)
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

    def _join(self, terms: list[Term]) -> list[Tensor]:
        """Attention over the terms, their mean, and the dynamic ReLU: ``(B, n, C)`` in parts that fit in the cache."""
        shares = [hard_sigmoid(F.relu(self.scale_attention(t.mean))) / len(terms) for t in terms]  # (B, 1)
        mean = torch.stack([share * t.mean for share, t in zip(shares, terms, strict=True)]).sum(0)
        theta = hard_sigmoid(self.relu_expand(F.relu(self.relu_squeeze(mean))))
        a1, b1, a2, b2 = (part.unsqueeze(1) for part in (theta - 0.5).chunk(4, -1))  # (B, 1, C)
        summand = torch.stack([share * t.summand for share, t in zip(shares, terms, strict=True)]).sum(0).unsqueeze(1)
        factors = [(share * t.factor).unsqueeze(1).to(t.rows.dtype) for share, t in zip(shares, terms, strict=True)]
        joined = []
        for parts in zip(*(t.rows.split(CELLS, 1) for t in terms), strict=True):
            out = summand
            for rows, factor in zip(parts, factors, strict=True):
                out = torch.addcmul(out, rows, factor)
            joined.append(torch.maximum(torch.addcmul(b1, out, 2 * a1 + 1), torch.addcmul(b2, out, 2 * a2)))
        return joined


def upsample(rows: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Bilinear, ends aligned: ``(B, h w, C)`` to ``(B, H W, C)``."""
    image = rows.transpose(1, 2).unflatten(2, source)
    image = F.interpolate(image, size=target, mode="bilinear", align_corners=True)
    return image.flatten(2).transpose(1, 2)


def flat_offsets(offset_map: Tensor, cells: int) -> Tensor:
    """Read a finer level's ``(B, 27, H, W)`` as the offsets and masks of ``cells`` coarser cells: ``(B, cells, 27)``.

    Offsets are the first 18 * cells numbers of the 18 offset channels laid out flat, masks the first 9 * cells of the
    9 mask channels.
    """
    offsets = offset_map[:, :18].flatten(1)[:, : 18 * cells].unflatten(1, (18, cells))
    masks = offset_map[:, 18:].flatten(1)[:, : 9 * cells].unflatten(1, (9, cells)).sigmoid()
    return torch.cat([offsets, masks], 1).transpose(1, 2)
