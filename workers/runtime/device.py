"""What is asked of PyTorch as a whole: sums that can be trusted, and moments in a device's time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def exact_sums() -> Iterator[None]:
    """Sum matrix products in FP32, and multiply FP32 in FP32 and not in TF32, whatever this
    process has set otherwise.

    By default PyTorch lets cuBLAS add up parts of FP16 and BF16 sums in those types, where they
    may overflow. On an H200 that is no faster.
    """
    matmul = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision()
    fp16 = matmul.allow_fp16_reduced_precision_reduction
    bf16 = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_fp16_reduced_precision_reduction = fp16
        matmul.allow_bf16_reduced_precision_reduction = bf16


class Moment:
    """When the device comes to what is queued now."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time = time.perf_counter()
        if device.type == "cuda":
            # Blocking: a thread that waits leaves its core to the others.
            self._event = torch.cuda.Event(enable_timing=True, blocking=True)
            self._event.record()

    def wait(self) -> None:
        """Return once the device is there."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Moment") -> float:
        """Of two moments that have both been waited for."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return float(earlier._event.elapsed_time(self._event)) / 1000


def host_buffer(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory on the host that the device can write to while the host does other things."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def send(values: Tensor, device: torch.device) -> Tensor:
    """A copy on the device of a tensor on the host; does not wait."""
    if device.type != "cuda":
        return values
    # From memory that is not pinned the copy would wait for all that is queued before it.
    return values.pin_memory().to(device, non_blocking=True)


def fetch(values: Tensor) -> Tensor:
    """A copy on the host, complete once the device has come that far; does not wait."""
    if values.device.type != "cuda":
        return values
    host = host_buffer(*values.shape, dtype=values.dtype, device=values.device)
    return host.copy_(values, non_blocking=True)
