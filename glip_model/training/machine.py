"""What training asks of the machine: memory, units for bf16, and pixels where they are needed."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glip_model.image import PixelSettings


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for itself: a step of training frees and asks for gigabytes.

    Otherwise each large tensor is mapped and page-faulted anew, which can cost more than the arithmetic.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        trim_threshold, mmap_threshold, largest = -1, -3, 2**31 - 1
        mallopt(mmap_threshold, largest)
        mallopt(trim_threshold, largest)


def has_bf16_units() -> bool:
    """Whether this processor multiplies bf16 matrices in hardware."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def pixel_values(rgb: Tensor, settings: PixelSettings) -> Tensor:
    """Bytes ``(B, H, W, 3)`` RGB to ``(B, 3, H, W)`` BGR, normalised, in channels-last memory."""
    mean, std = (torch.tensor(values, device=rgb.device) for values in (settings.mean, settings.std))
    return ((rgb.flip(-1).float() - mean) / std).permute(0, 3, 1, 2)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write aside and rename, so that a killed run always finds a whole checkpoint.

    Raises:
        OSError, RuntimeError: it cannot be written; of the latter the former is the context.
    """
    aside = path.with_name(f"{path.name}.part")
    try:
        with aside.open("wb") as file:  # which torch opened itself it does not say why writing failed
            torch.save(state, file)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
