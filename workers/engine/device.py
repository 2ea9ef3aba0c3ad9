"""The device of an embedder: finding it by its name, and explaining its errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from common.errors import UserError
from common.text import counted


class DeviceLostError(Exception):
    """An error of the device after which every later call fails too, until a new process."""


#: Pattern of the device's errors in PyTorch and Triton.
DEVICE_ERROR = re.compile(r"CUDA error|Triton Error \[CUDA\]")


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise the device's errors under two classes, and let all others pass.

    Raises:
        torch.OutOfMemoryError: the device has no memory left, as PyTorch or Triton reports.
        DeviceLostError: any other error of the device.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if DEVICE_ERROR.search(str(error)) is None:
            raise
        first_line = str(error).splitlines()[0]
        if "out of memory" in first_line:
            raise torch.OutOfMemoryError(first_line) from error
        raise DeviceLostError(first_line) from error


def find_device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch("cpu|cuda(:[0-9]+)?", str(name)) is None:
        raise UserError(f"device={name!r}: give 'auto', 'cpu', 'cuda' or 'cuda:N' for GPU N.")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        gpus = counted(torch.cuda.device_count(), "GPU")
        raise UserError(f"device={name!r}: PyTorch finds {gpus} here. Use 'auto' or 'cpu'.")
    return device


@contextmanager
def device_errors_explained(device: torch.device) -> Iterator[None]:
    """Use a device within the block, and say what to do if it fails.

    Raises:
        UserError: it failed, or has too little memory.
    """
    try:
        # Kernels run on the current device, which is a thread's own.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{device} has too little free memory ({str(error).splitlines()[0]}). End other "
            "programs on it, lower max_residues, take a smaller model, or give device='cpu'."
        ) from error
    except DeviceLostError as error:
        raise UserError(
            f"{device} failed ({error}), and this process can no longer use it: restart Python."
        ) from error
