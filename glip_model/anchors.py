"""The fixed boxes that predictions are relative to: one square per cell of each feature level.

Frame: pixels of the network input. Source: the official GLIP configuration (strides 8 to 128, one anchor per
cell, 8 strides wide).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LEVEL_STRIDES = (8, 16, 32, 64, 128)

_STRIDES_PER_SIDE = 8


def grid_anchors(level_sizes_hw: Sequence[tuple[int, int]], device: torch.device | None = None) -> list[Tensor]:
    """Return the anchors of every level, cells row by row.

    An anchor reaches from 3.5 strides before its cell's corner to 4.5 strides minus one pixel behind it: 8
    strides wide when the last pixel counts, its centre ``(stride - 1) / 2`` from the corner.

    Args:
        level_sizes_hw: (height, width) in cells of the levels P3 to P7.
        device: where to create them; None for torch's default.

    Returns:
        One ``(height * width, 4)`` tensor of x1, y1, x2, y2 per level.

    Raises:
        ValueError: there are not exactly five levels.
    """
    if len(level_sizes_hw) != len(LEVEL_STRIDES):
        raise ValueError(f"need the sizes of {len(LEVEL_STRIDES)} feature levels, got {len(level_sizes_hw)}")
    return [
        _level_anchors(height, width, stride, device)
        for (height, width), stride in zip(level_sizes_hw, LEVEL_STRIDES, strict=True)
    ]


def _level_anchors(height: int, width: int, stride: int, device: torch.device | None) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32) * stride,
        torch.arange(width, device=device, dtype=torch.float32) * stride,
        indexing="ij",
    )
    corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 4)  # (h * w, 4)
    low = -(_STRIDES_PER_SIDE - 1) / 2 * stride
    high = (_STRIDES_PER_SIDE + 1) / 2 * stride - 1
    return corners + torch.tensor((low, low, high, high), device=device)
