"""The torch device to work on."""

from typing import TYPE_CHECKING

from backend.errors import ModelError

if TYPE_CHECKING:
    import torch


def find_device(name: str | None) -> "torch.device":
    """Give the device of this name; the GPU where there is one, else the CPU, where None.

    Raises:
        ModelError: this machine, or this build of torch, has no such device.
    """
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a build without CUDA
        raise ModelError(f"no device {name!r} here: set GLIP_LABEL_DEVICE to cpu, or leave it out") from error
