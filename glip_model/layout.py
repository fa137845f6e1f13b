"""Where tensors lie in memory: loops over rows in steps that fit in a processor's cache, convolutions without copies.

What does not fit is written to memory and read back by the next operation, and a large new tensor is page-faulted anew
at every call: on a CPU both cost more than much of the arithmetic between them.
"""

from collections import deque
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


def room_for(like: Tensor, rows: int, channels: int) -> Tensor | None:
    """Memory ``(B, rows, channels)`` for what the steps of a loop over ``like (B, ...)`` yield, or None.

    With it the last operation of a step writes its rows where they belong. None where autograd keeps the parts anyway,
    where autocast decides on their type, and on a GPU, whose few long steps gain nothing.
    """
    if not _is_plain(like):
        return None
    return like.new_empty(len(like), rows, channels)


def _is_plain(x: Tensor) -> bool:
    """Whether this is inference in fp32 on a CPU."""
    inference = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return inference and x.device.type == "cpu" and x.dtype == torch.float32


def place(room: Tensor | None, part: slice) -> Tensor | None:
    """The rows of ``room`` that a step makes, to be given as its last operation's ``out``."""
    return None if room is None else room[:, part]


def joined(parts: Iterable[Tensor], room: Tensor | None) -> Tensor:
    """All parts ``(B, rows, C)`` one after the other: ``room``, into which they wrote themselves, or a ``cat``."""
    if room is None:
        return torch.cat(list(parts), 1)
    deque(parts, maxlen=0)
    return room


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """``F.linear`` of ``x (..., C)`` that can write to ``out``.

    Where `room_for` gives memory it is a 1 x 1 convolution: torch leaves those to oneDNN, and products of matrices to
    MKL, which multiplies half as fast on processors that are not Intel's.
    """
    if not _is_plain(x) or not torch.backends.mkldnn.is_available():
        result = F.linear(x, weight, bias)
    else:
        rows = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # (1, C, rows, 1) in channels-last memory
        maps = F.conv2d(rows, weight[:, :, None, None], bias)
        result = maps.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))
    return result if out is None else out.copy_(result)


def convolved(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """``conv(maps)`` with both in channels-last memory; with few channels, each call would else rearrange them."""
    kernel = conv.weight.contiguous(memory_format=torch.channels_last)
    maps = maps.contiguous(memory_format=torch.channels_last)
    return F.conv2d(maps, kernel, conv.bias, conv.stride, conv.padding)
