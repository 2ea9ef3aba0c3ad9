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

__all__ = ["HALF_DTYPES", "can_run", "triton"]

HALF_DTYPES = (torch.float16, torch.bfloat16)


def can_run(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run there, on numbers of that type."""
    if triton is None or device.type != "cuda" or dtype not in HALF_DTYPES:
        return False
    # On GPUs before Ampere Triton multiplies without matrix units.
    return torch.cuda.get_device_capability(device) >= (8, 0)
