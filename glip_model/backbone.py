"""Image encoder: Swin and the feature pyramid.

Shape letters: B images, H and W rows and columns of a map, C channels, n tokens of one window (window size squared).
Maps between modules are ``(B, H, W, C)`` inside Swin and ``(B, C, H, W)`` in channels-last memory elsewhere.
"""

from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoBackbone

from glip_model.configuration_glip import GlipConfig, GlipSwinConfig

# Chunks that keep a layer's intermediate tensors in the processor's cache; larger ones are page-faulted anew.
WINDOW_TOKENS = 3136
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


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept tensors serve training too
def _shift_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Additive mask (0 or -100) between tokens that the cyclic shift brought together: ``(windows, n, n)``.

    ``height`` and ``width`` are multiples of ``window``. Nine regions on the shifted map may not see one another.
    """
    shift = window // 2
    regions = torch.zeros(height, width)
    edges = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(edges):
        for j, columns in enumerate(edges):
            regions[rows, columns] = 3 * i + j
    flat = _to_windows(regions[None, :, :, None], window)[..., 0]  # (windows, n)
    return torch.where(flat[:, None, :] == flat[:, :, None], 0.0, -100.0).to(device)


def _to_windows(x: Tensor, window: int) -> Tensor:
    """Cut ``(B, H, W, C)`` into ``(B * windows, n, C)``; H and W are multiples of ``window``."""
    B, H, W, C = x.shape
    x = x.view(B, H // window, window, W // window, window, C)
    return x.transpose(2, 3).reshape(-1, window * window, C)


def _from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`_to_windows`: ``(B, height, width, C)``."""
    n, C = windows.shape[1:]
    side = int(n**0.5)
    x = windows.view(-1, height // side, width // side, side, side, C)
    return x.transpose(2, 3).reshape(-1, height, width, C)


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

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within each window.

        Args:
            windows: ``(B * windows, n, C)``.
            mask: ``(windows, n, n)``, added to the scores; windows of one image repeat in order.
        """
        total, n, _ = windows.shape
        bias = self._bias()
        step = max(1, WINDOW_TOKENS // n)
        if mask is None:
            return torch.cat([self._attend(part, bias) for part in windows.split(step)])
        index = torch.arange(total, device=windows.device) % len(mask)
        parts = zip(windows.split(step), index.split(step), strict=True)
        return torch.cat([self._attend(part, bias + mask[rows].unsqueeze(1)) for part, rows in parts])

    def _attend(self, windows: Tensor, bias: Tensor) -> Tensor:
        w, n, C = windows.shape
        qkv = self.qkv(windows).view(w, n, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (w, heads, n, C / heads)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias  # (w, heads, n, n)
        return cast(Tensor, self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(w, n, C)))


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
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return cast(Tensor, x + self.drop_path(self._transform(x)))

    def _attend(self, x: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        # Padding comes after the norm, with zeros that are not masked: pads answer with the bias alone.
        x = F.pad(x, (0, 0, 0, -W % self.window, 0, -H % self.window))
        _, height, width, _ = x.shape
        mask = None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
            mask = _shift_mask(height, width, self.window, x.device)
        windows = self.attention(_to_windows(x, self.window), mask)
        x = _from_windows(windows, height, width)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :H, :W]

    def _transform(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 2).split(MLP_TOKENS)
        return torch.cat([self.contract(F.gelu(self.expand(self.norm2(part)))) for part in rows]).view_as(x)


class PatchMerging(nn.Module):
    """Halves a map: four neighbours concatenated, normalised and projected to twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        quarters = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return cast(Tensor, self.reduce(self.norm(torch.cat(quarters, -1))))  # (B, H / 2, W / 2, 2 C)


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
        x = self.patch_embed(F.pad(pixel_values, (0, -W % 4, 0, -H % 4)))
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
