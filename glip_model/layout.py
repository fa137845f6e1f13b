"""Where tensors lie in memory: loops over rows in steps that fit in a processor's cache, convolutions without copies.

What does not fit is written to memory and read back by the next operation, and a large new tensor is page-faulted anew
at every call: on a CPU both cost more than much of the arithmetic between them.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELLS = 1024
"""Rows of a map per step: a few tensors of 256 channels stay in the cache."""

_ROWS_ELSEWHERE = 1 << 16
"""A GPU wants long steps; this bounds their memory."""


def slices(length: int, device: torch.device, step: int = CELLS) -> list[slice]:
    """Cover ``range(length)`` in order, ``step`` at a time on a CPU, in few long steps elsewhere."""
    step = step if device.type == "cpu" else max(step, _ROWS_ELSEWHERE)
    return [slice(start, start + step) for start in range(0, length, step)]


def joined(parts: Iterable[Tensor], length: int, dim: int) -> Tensor:
    """``torch.cat`` of parts that have ``length`` entries along ``dim`` together.

    Without gradients each part is copied to its place as it comes, while it is still in the cache. Autograd keeps the
    parts anyway, so there it is a plain ``cat``.
    """
    if torch.is_grad_enabled():
        return torch.cat(list(parts), dim)
    whole, start = torch.empty(0), 0
    for part in parts:
        if start == 0:
            whole = part.new_empty((*part.shape[:dim], length, *part.shape[dim + 1 :]))
        whole.narrow(dim, start, part.shape[dim]).copy_(part)
        start += part.shape[dim]
    return whole


def convolved(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """``conv(maps)`` with both in channels-last memory; with few channels, each call would else rearrange them."""
    kernel = conv.weight.contiguous(memory_format=torch.channels_last)
    maps = maps.contiguous(memory_format=torch.channels_last)
    return F.conv2d(maps, kernel, conv.bias, conv.stride, conv.padding)
