"""Triton kernels for the half-precision path on NVIDIA GPUs, each with a reference test.

They are here because they beat what the libraries have by a margin worth their upkeep
(``docs/performance.md``); everything else is PyTorch's. Triton comes with PyTorch on Linux; where
it is not installed, ``can_run`` says no and nothing here is called.
"""

import torch

try:
    import triton
except ImportError:
    triton = None

__all__ = ["can_run", "has_matrix_units", "triton"]

HALF_DTYPES = (torch.float16, torch.bfloat16)


def can_run(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run there, on numbers of that type."""
    return triton is not None and has_matrix_units(device, dtype)


def has_matrix_units(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton and FlashAttention multiply such numbers in matrix units there: not on GPUs
    before Ampere.
    """
    if device.type != "cuda" or dtype not in HALF_DTYPES:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
