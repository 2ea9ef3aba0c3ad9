"""Attention behind one module: the fastest exact kernel that the machine has.

Packed tokens in half precision on CUDA go to our own kernel; where Triton is not to be had, to
``flash_attn`` or PyTorch's own variable-length FlashAttention; everywhere else, and for FP32, which
none of these knows, to ``scaled_dot_product_attention`` segment by segment.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.kernels import attention as own_kernel
from workers.models.kernels import has_matrix_units

#: FlashAttention-2 has no wider heads.
LARGEST_HEAD = 256

Kernel = Callable[..., Tensor]


def find_flash_attn() -> Kernel | None:
    with suppress(ImportError):
        from flash_attn import flash_attn_varlen_func

        return cast(Kernel, flash_attn_varlen_func)
    return None


def find_torch_varlen() -> Kernel | None:
    with suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn

        return cast(Kernel, varlen_attn)
    return None


FLASH_ATTN = find_flash_attn()

#: Both take the same first seven arguments.
VARLEN_KERNEL = FLASH_ATTN or find_torch_varlen()


def can_run(kernel: Kernel | None, device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether there is such a FlashAttention, and it takes queries like these."""
    fits = head_dim % 8 == 0 and head_dim <= LARGEST_HEAD
    return kernel is not None and fits and has_matrix_units(device, dtype)


def nan_beyond(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Queries or keys ``x``, with NaN for what is not finite in ``dtype``.

    An infinite key passes for one that nobody looks for: where its scores are -Inf its weights are
    0, and the result is finite without it. NaN survives every softmax.
    """
    return torch.where(x.abs() <= torch.finfo(dtype).max, x, torch.nan)


class Segments(NamedTuple):
    """Tokens of several segments in one row: ``[T, H, Dh]``."""

    cu_seqlens: Tensor  # [N + 1] int32, on the tokens' device
    max_seqlen: int
    tiles: Tensor | None = None  # for our own kernel
    lengths: list[int] | None = None  # for the kernel that goes segment by segment


class Padded(NamedTuple):
    """Tokens of several sequences, padded to one length: ``[B, T, H, Dh]``."""

    real: Tensor  # [B, T] bool, False at padding


def segments_of(
    cu_seqlens: Tensor, max_seqlen: int, total: int, *, dtype: torch.dtype, head_dim: int
) -> Segments:
    """The layout of a pack for the fastest kernel there is; made once and used in every block.

    Args:
        cu_seqlens: ``[N + 1]`` int32, where each segment starts; the last entry is ``total``.
        max_seqlen: at least the longest segment's tokens.
        total: tokens of all segments.
        dtype: of queries, keys and values.
        head_dim: their width.
    """
    device = cu_seqlens.device
    if own_kernel.takes(device, dtype, head_dim):
        tiles = own_kernel.tiles_of(cu_seqlens, total)
        return Segments(cu_seqlens, max_seqlen, tiles=tiles)
    if can_run(VARLEN_KERNEL, device, dtype, head_dim):
        return Segments(cu_seqlens, max_seqlen)
    # The only layout that waits for the device.
    return Segments(cu_seqlens, max_seqlen, lengths=cu_seqlens.diff().tolist())


class Attention(nn.Module):
    """Softmax attention, scaled by ``Dh ** -0.5``, within each segment or sequence."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layout: Segments | Padded) -> Tensor:
        """Attend.

        Args:
            q, k, v: ``[T, H, Dh]`` for ``Segments``, ``[B, T, H, Dh]`` for ``Padded``; no Inf in
                queries and keys, but NaN (``nan_beyond``).
            layout: which tokens may see each other.

        Returns:
            The attended values, shaped as ``q``.
        """
        if isinstance(layout, Padded):
            return padded_attention(q, k, v, layout)
        if layout.lengths is not None:
            return segment_attention(q, k, v, layout.lengths)
        if layout.tiles is not None:
            return own_kernel.varlen_attention(q, k, v, layout.tiles, None)
        return varlen_attention(q, k, v, layout.cu_seqlens, layout.max_seqlen)


def padded_attention(q: Tensor, k: Tensor, v: Tensor, layout: Padded) -> Tensor:
    mask = layout.real[:, None, None, :]  # [B, 1, 1, T]
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def segment_attention(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    out = torch.empty_like(q)
    start = 0
    for length in lengths:
        one = slice(start, start + length)
        # [1, H, L, Dh]: what the kernels expect.
        q1, k1, v1 = (t[one].transpose(0, 1)[None] for t in (q, k, v))
        out[one] = F.scaled_dot_product_attention(q1, k1, v1)[0].transpose(0, 1)
        start += length
    return out


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> Tensor:
    assert VARLEN_KERNEL is not None
    return VARLEN_KERNEL(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
