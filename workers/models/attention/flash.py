"""The FlashAttention kernels of other libraries, if they are installed."""

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import torch
from torch import Tensor

from workers.models.kernels import has_matrix_units

#: The widest head that FlashAttention-2 accepts.
LARGEST_HEAD = 256

Kernel = Callable[..., Tensor]


def find_flash_attn() -> Kernel | None:
    """Return the variable-length kernel of the ``flash_attn`` package."""
    with suppress(ImportError):
        from flash_attn import flash_attn_varlen_func

        return cast(Kernel, flash_attn_varlen_func)
    return None


def find_torch_varlen() -> Kernel | None:
    """Return PyTorch's own variable-length kernel, which has no ALiBi."""
    with suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn

        return cast(Kernel, varlen_attn)
    return None


#: The kernel with ALiBi.
FLASH_ATTN = find_flash_attn()

#: The kernel without ALiBi; the first seven arguments of either library's are the same.
VARLEN_KERNEL = FLASH_ATTN or find_torch_varlen()


def can_run(kernel: Kernel | None, device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether the kernel is installed and accepts such queries."""
    fits = head_dim % 8 == 0 and head_dim <= LARGEST_HEAD
    return kernel is not None and fits and has_matrix_units(device, dtype)
