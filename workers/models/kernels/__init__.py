"""Triton kernels for the half-precision path on NVIDIA GPUs, each with a reference test.

Each is enough faster than the libraries' to be worth its maintenance (``docs/performance.md``);
everything else uses PyTorch's. Triton comes with PyTorch on Linux; if it is not installed,
``can_run`` is False and nothing here is called.
"""

import torch

try:
    import triton
except ImportError:
    triton = None

__all__ = ["can_run", "has_matrix_units", "triton"]

HALF_DTYPES = (torch.float16, torch.bfloat16)


def can_run(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the kernels can run on this device in this dtype."""
    return triton is not None and has_matrix_units(device, dtype)


def has_matrix_units(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether Triton and FlashAttention can use matrix units: on Ampere GPUs and later."""
    if device.type != "cuda" or dtype not in HALF_DTYPES:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
