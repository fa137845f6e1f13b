"""Image encoder: Swin and the feature pyramid.

Shape letters: B images, H and W rows and columns of a map, C channels, n tokens of one window (window size squared).
Maps between modules are ``(B, H, W, C)`` inside Swin and ``(B, C, H, W)`` in channels-last memory elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoBackbone

from glip_model.configuration_glip import GlipConfig, GlipSwinConfig
from glip_model.layout import CELLS, convolved, joined, linear, place, room_for, slices

# Rows per step; wider layers' intermediate tensors leave the cache sooner.
WINDOW_TOKENS = 6272
MLP_TOKENS = 2048


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept tensors serve training too
def _relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of positions in a window: ``(n * n,)`` int64 (Swin, eq. 4)."""
    ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    ys, xs = ys.flatten(), xs.flatten()
    dy = ys[:, None] - ys[None, :] + window - 1
    dx = xs[:, None] - xs[None, :] + window - 1
    return (dy * (2 * window - 1) + dx).flatten()


@dataclass(frozen=True)
class WindowPlan:
    """How the cells of a map are dealt out to windows: padded right and bottom, shifted, cut; k windows of n places.

    Windows with padding, or to which the shift brought cells from opposite edges, come last: the others need no mask.

    Attributes:
        cells: ``(k, n)`` int64, the cell in each place, row-major; 0 for padding.
        places: ``(H * W,)`` int64, the place of each cell, counted over all windows.
        inside: ``(m, n, 1)``, of the last m windows: 0 for padding, 1 for cells.
        mask: ``(m, n, n)``, 0 or -100, of the same: cells from opposite edges may not see one another.
    """

    cells: Tensor
    places: Tensor
    inside: Tensor
    mask: Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept tensors serve training too
def window_plan(height: int, width: int, window: int, shift: int, device: torch.device) -> WindowPlan:
    """Deal out a map of ``height`` x ``width`` cells (Swin, section 3.2); ``shift`` is 0 or half a window."""
    rows, columns = (-(-size // window) * window for size in (height, width))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    y, x = (y + shift) % rows, (x + shift) % columns  # what the cyclic shift brings to each place
    # Along each axis the last window holds cells from both edges; which edge is what must agree.
    edge = [(at < shift).long() for at in (y, x)]
    y, x, region = (_to_windows(part, window) for part in (y, x, 2 * edge[0] + edge[1]))
    inside = (y < height) & (x < width)
    uneven = (region != region[:, :1]).any(1) | ~inside.all(1)
    order = uneven.int().argsort(stable=True)
    y, x, inside, region = y[order], x[order], inside[order], region[uneven]
    cells = torch.where(inside, y * width + x, 0)
    places = torch.empty(height * width, dtype=torch.int64)
    places[cells[inside]] = inside.flatten().nonzero().squeeze(1)
    mask = torch.where(region[:, None, :] == region[:, :, None], 0.0, -100.0)
    inside = inside[len(inside) - len(mask) :].float().unsqueeze(-1)
    return WindowPlan(*(part.to(device) for part in (cells, places, inside, mask)))


def _to_windows(x: Tensor, window: int) -> Tensor:
    """Cut ``(H, W)`` into ``(windows, n)``; H and W are multiples of ``window``."""
    return x.unfold(0, window, window).unfold(1, window, window).flatten(2).flatten(0, 1)


class DropPath(nn.Module):
    """Drops a residual branch for whole samples, in training (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1.0 - self.rate)


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learnt bias per relative position."""

    def __init__(self, channels: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def _bias(self) -> Tensor:
        n = self.window**2
        index = _relative_position_index(self.window).to(self.position_bias.device)
        return self.position_bias[index].view(n, n, -1).permute(2, 0, 1)  # (heads, n, n)

    def forward(self, windows: Tensor, mask: Tensor | None, out: Tensor | None) -> Tensor:
        """Attend within each window; returns ``(B, k * n, C)``.

        Args:
            windows: ``(B, k, n, C)``.
            mask: ``(k, n, n)``, added to the scores, or None.
            out: where the result goes, or None.
        """
        B, k, n, C = windows.shape
        parts = linear(windows, self.qkv.weight, self.qkv.bias).view(B * k, n, 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B k, heads, n, d)
        bias = self._bias() if mask is None else (self._bias() + mask.unsqueeze(1)).repeat(B, 1, 1, 1)
        seen = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype).expand(B * k, -1, -1, -1)
        )
        return linear(seen.transpose(1, 2).reshape(B, k * n, C), self.project.weight, self.project.bias, out)


class SwinBlock(nn.Module):
    """Window attention, then a two-layer perceptron, each a residual branch behind a LayerNorm."""

    def __init__(self, channels: int, num_heads: int, config: GlipSwinConfig, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.window = config.window_size
        # Kept on maps smaller than a window too, unlike transformers' Swin: trained weights rely on it.
        self.shift = config.window_size // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, num_heads, config.window_size)
        self.norm2 = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, int(channels * config.mlp_ratio))
        self.contract = nn.Linear(int(channels * config.mlp_ratio), channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, _ = x.shape
        plan = window_plan(H, W, self.window, self.shift, x.device)
        rows = x.flatten(1, 2)  # (B, H W, C)
        attended = self.drop_path(self._attend(rows, plan))
        kept = self.drop_path(x.new_ones(B, 1, 1))

        def transformed(part: slice) -> Tensor:
            y = rows[:, part] + attended.index_select(1, plan.places[part])
            inner = F.gelu(linear(self.norm2(y), self.expand.weight, self.expand.bias))
            changed = linear(inner, self.contract.weight, self.contract.bias)
            return torch.addcmul(y, changed, kept, out=place(room, part))

        room = room_for(rows, *rows.shape[1:])
        return joined(map(transformed, slices(H * W, x.device, MLP_TOKENS)), room).view_as(x)

    def _attend(self, rows: Tensor, plan: WindowPlan) -> Tensor:
        """Window attention on ``(B, H W, C)``: what each place of each window learns, ``(B, k n, C)``."""
        k, n = plan.cells.shape
        even = k - len(plan.mask)
        step = max(1, WINDOW_TOKENS // n)

        def attended(first: int, last: int, uneven: slice | None) -> Tensor:
            cells = plan.cells[first:last]
            x = self.norm1(rows.index_select(1, cells.flatten())).unflatten(1, cells.shape)
            if uneven is not None:
                # Padding comes after the norm, with zeros that are not masked: pads answer with the bias alone.
                x = x * plan.inside[uneven].to(x.dtype)
            mask = None if uneven is None else plan.mask[uneven]
            return cast(Tensor, self.attention(x, mask, place(room, slice(first * n, last * n))))

        def parts() -> Iterator[Tensor]:
            for windows in slices(even, rows.device, step):
                yield attended(windows.start, min(windows.stop, even), None)
            for windows in slices(k - even, rows.device, step):
                yield attended(even + windows.start, even + windows.stop, windows)

        room = room_for(rows, k * n, rows.shape[2])
        return joined(parts(), room)


class PatchMerging(nn.Module):
    """Halves a map: four neighbours concatenated, normalised and projected to twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[1:3]
        if H % 2 or W % 2:
            x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        h, w = (H + 1) // 2, (W + 1) // 2
        fours = x.unflatten(2, (w, 2)).unflatten(1, (h, 2)).permute(0, 1, 3, 4, 2, 5)  # columns before rows

        def merged(part: slice) -> Tensor:
            four = self.norm(fours[:, part].flatten(3)).flatten(1, 2)  # (B, cells, 4 C)
            return linear(four, self.reduce.weight, None, place(room, slice(part.start * w, part.stop * w)))

        room = room_for(x, h * w, self.reduce.out_features)
        rows = joined(map(merged, slices(h, x.device, max(1, CELLS // w))), room)
        return rows.view(len(x), h, w, -1)


class SwinBackbone(nn.Module):
    """Swin v1. Returns the maps of strides 8, 16 and 32, each behind its own LayerNorm."""

    def __init__(self, config: GlipSwinConfig) -> None:
        super().__init__()
        widths = [config.embed_dim * 2**i for i in range(len(config.depths))]
        self.channels = widths[1:]
        self.patch_embed = nn.Conv2d(3, config.embed_dim, kernel_size=4, stride=4)
        self.patch_norm = nn.LayerNorm(config.embed_dim)
        rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for width, depth, heads in zip(widths, config.depths, config.num_heads, strict=True):
            blocks = [SwinBlock(width, heads, config, i % 2 == 1, rates.pop(0)) for i in range(depth)]
            self.stages.append(nn.ModuleList(blocks))
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """``(B, 3, H, W)`` to three maps ``(B, C, H / s, W / s)`` in channels-last memory."""
        H, W = pixel_values.shape[-2:]
        x = convolved(self.patch_embed, F.pad(pixel_values, (0, -W % 4, 0, -H % 4)))
        x = self.patch_norm(x.permute(0, 2, 3, 1))  # (B, H / 4, W / 4, C)
        maps = []
        for i, stage in enumerate(self.stages):
            for block in cast(nn.ModuleList, stage):
                x = block(x)
            if i > 0:
                maps.append(self.norms[i - 1](x).permute(0, 3, 1, 2))
            if i < len(self.merges):
                x = self.merges[i](x)
        return maps


class TransformersBackbone(nn.Module):
    """Any backbone of transformers that yields three maps of strides 8, 16 and 32."""

    def __init__(self, config: GlipConfig) -> None:
        super().__init__()
        self.body = AutoBackbone.from_config(config.backbone_config)
        self.channels = list(self.body.channels)
        if len(self.channels) != 3:
            raise ValueError(f"the backbone yields {len(self.channels)} maps, not 3: set out_features to three stages")

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        maps = self.body(pixel_values.contiguous(memory_format=torch.channels_last)).feature_maps
        return [x.contiguous(memory_format=torch.channels_last) for x in maps]


class DropBlock(nn.Module):
    """Drops 3 x 3 blocks of cells and rescales the rest, in training (DropBlock, algorithm 1)."""

    def __init__(self, rate: float, block: int = 3) -> None:
        super().__init__()
        self.rate, self.block = rate, block

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        seeds = (torch.rand(x.shape[0], 1, *x.shape[2:], device=x.device) < self.rate / self.block**2).to(x.dtype)
        keep = 1 - F.max_pool2d(seeds, self.block, stride=1, padding=self.block // 2)
        return x * keep * keep.numel() / keep.sum().clamp(min=1)


class FeaturePyramid(nn.Module):
    """P3 to P7 of 3 backbone maps: top-down pathway, then two stride-2 convolutions on P5 (RetinaNet style)."""

    def __init__(self, in_channels: list[int], channels: int, drop_block_rate: float) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.drop_block = DropBlock(drop_block_rate)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Three maps of strides 8, 16, 32 to five ``(B, C, h, w)`` of strides 8 to 128."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in (1, 0):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        p3, p4 = (self.smooth[i](self.drop_block(merged[i])) for i in (0, 1))
        p5 = self.smooth[2](merged[2])
        p6 = self.p6(p5)
        return [p3, p4, p5, p6, self.p7(F.relu(p6))]
