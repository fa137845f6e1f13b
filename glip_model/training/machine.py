"""What training asks of the machine: memory, units for bf16, and pixels where they are needed."""

import ctypes
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glip_model.image import PixelSettings
from glip_model.weights_files import NO_CHECKPOINT


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
    """Write aside and rename, so that a killed run, or a power cut, always leaves a whole checkpoint.

    Raises:
        OSError, RuntimeError: it cannot be written; of the latter the former is the context.
    """
    aside = path.with_name(f"{path.name}.part")
    try:
        with aside.open("wb") as file:  # which torch opened itself it does not say why writing failed
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class DamagedCheckpointError(RuntimeError):
    """A file that no checkpoint can be read from."""


def load_checkpoint(path: Path, parts: Collection[str], device: torch.device | None = None) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, without running any code in it.

    Args:
        path: the file.
        parts: names that a whole checkpoint has.
        device: where its tensors go; None for where they were.

    Raises:
        DamagedCheckpointError: it is no checkpoint, or a damaged one.
        OSError: it cannot be read.
        torch.OutOfMemoryError: the device has no room for it.
    """
    try:
        checkpoint: Any = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        if error.filename is not None:
            raise
        raise DamagedCheckpointError(path) from error  # torch looks for what lies behind the end of a cut-off file
    except torch.OutOfMemoryError:  # is a RuntimeError, too
        raise
    except NO_CHECKPOINT as error:
        raise DamagedCheckpointError(path) from error
    if not isinstance(checkpoint, dict) or not all(part in checkpoint for part in parts):
        raise DamagedCheckpointError(path)
    return checkpoint
