"""The torch device to work on."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
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


def check_device(name: str) -> None:
    """Look for a device in a process of its own: in this one torch would keep memory, also the GPU's, until it ends.

    Raises:
        ModelError: this machine, or this build of torch, has no such device.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(_look_for, name).result()


def _look_for(name: str) -> None:
    find_device(name)
