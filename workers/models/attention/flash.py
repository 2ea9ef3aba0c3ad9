"""The FlashAttention kernels of other libraries, if they are installed."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import cast

import torch
from torch import Tensor

from workers.models.kernels import has_matrix_units

#: The widest head that FlashAttention-2 accepts.
LARGEST_HEAD = 256

Kernel = Callable[..., Tensor]


@cache
def find_flash_attn() -> Kernel | None:
    """Return the variable-length kernel of the ``flash_attn`` package."""
    with suppress(ImportError):
        from flash_attn import flash_attn_varlen_func

        return cast(Kernel, flash_attn_varlen_func)
    return None


@cache
def find_torch_varlen() -> Kernel | None:
    """Return PyTorch's own variable-length kernel, which has no ALiBi.

    Its import takes two seconds and brings in the compiler: only a GPU without Triton pays them.
    """
    with suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn

        return cast(Kernel, varlen_attn)
    return None


def find_kernel(*, alibi: bool) -> Kernel | None:
    """Return a kernel with or without ALiBi; the first seven arguments of all are the same."""
    return find_flash_attn() or (None if alibi else find_torch_varlen())


def can_run(device: torch.device, dtype: torch.dtype, head_dim: int, *, alibi: bool) -> bool:
    """Return whether a kernel is installed and accepts such queries."""
    fits = head_dim % 8 == 0 and head_dim <= LARGEST_HEAD
    return fits and has_matrix_units(device, dtype) and find_kernel(alibi=alibi) is not None
