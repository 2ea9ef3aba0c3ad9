"""The device of a process: its name, exact sums, events in its queue, and copies."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

#: The device's name on a worker without a GPU.
CPU = "CPU"


def device_name(device: str | torch.device) -> str:
    """Return the full name of a GPU, such as ``NVIDIA H200``, or of ``cpu``."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else CPU


@contextmanager
def exact_sums() -> Iterator[None]:
    """Sum matrix products in FP32, and multiply FP32 in FP32, not in TF32.

    By default PyTorch lets cuBLAS add partial sums of FP16 and BF16 products in those types, where
    they may overflow. On an H200 that default is not faster.
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


class DeviceEvent:
    """An event in the device's queue, after everything queued so far."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time = time.perf_counter()
        if device.type == "cuda":
            # Blocking: a waiting thread leaves its core to the others.
            self._event = torch.cuda.Event(enable_timing=True, blocking=True)
            self._event.record()

    def wait(self) -> None:
        """Return once the device has reached the event."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "DeviceEvent") -> float:
        """Return the device's time between two events, both of which have been waited for."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return float(earlier._event.elapsed_time(self._event)) / 1000


def host_buffer(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return memory on the host that the device can write to asynchronously."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a copy on the device of a tensor on the host, without waiting."""
    if device.type != "cuda":
        return values
    # A copy from memory that is not pinned would wait for all work queued before it.
    return values.pin_memory().to(device, non_blocking=True)


def to_host(values: Tensor) -> Tensor:
    """Return a copy on the host, complete once the device has reached it, without waiting."""
    if values.device.type != "cuda":
        return values
    host = host_buffer(*values.shape, dtype=values.dtype, device=values.device)
    return host.copy_(values, non_blocking=True)
