"""The FlashAttention kernels of other libraries, if they are installed."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import cast

from torch import Tensor

#: The widest head that FlashAttention-2 accepts.
LARGEST_HEAD = 256

#: A kernel of variable-length segments. The first seven arguments of all are the same: queries,
#: keys and values ``[T, H, Dh]``, ``cu_seqlens`` twice, and the longest segment's tokens twice.
Varlen = Callable[..., Tensor]


@cache
def find_flash_attn() -> Varlen | None:
    """Return the kernel of the ``flash_attn`` package, which has ALiBi."""
    with suppress(ImportError):
        from flash_attn import flash_attn_varlen_func

        return cast(Varlen, flash_attn_varlen_func)
    return None


@cache
def find_torch_varlen() -> Varlen | None:
    """Return PyTorch's own kernel, which has no ALiBi.

    Its import takes two seconds and brings in the compiler: only a GPU without Triton pays them.
    """
    with suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn

        return cast(Varlen, varlen_attn)
    return None


def kernel_named(name: str) -> Varlen:
    """Return the kernel of a library, which is installed."""
    found = find_flash_attn() if name == "flash_attn" else find_torch_varlen()
    assert found is not None, name
    return found


def unfit(name: str, head_dim: int, *, alibi: bool) -> str | None:
    """Return why the kernel of a library cannot be used; None if it may be tried."""
    if head_dim % 8 or head_dim > LARGEST_HEAD:
        return f"FlashAttention has no heads of {head_dim}"
    if name == "flash_attn":
        return None if find_flash_attn() else "flash_attn is not installed"
    if alibi:
        return "it has no ALiBi"
    return None if find_torch_varlen() else "this PyTorch has none"
