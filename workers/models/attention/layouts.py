"""Layouts: which tokens attend to each other, in the form that one kernel takes."""

from typing import NamedTuple

import torch
from torch import Tensor

from workers.models.attention.alibi import bias_table, padded_biases
from workers.models.attention.choice import Case, Kernel, packed_choice
from workers.models.kernels import attention as own_kernel


class TiledSegments(NamedTuple):
    """A pack, for this project's Triton kernel."""

    tiles: Tensor  # own_kernel.tiles_of
    slopes: Tensor | None  # [H] FP32, with ALiBi


class FlashSegments(NamedTuple):
    """A pack, for a library's FlashAttention."""

    kernel: Kernel
    cu_seqlens: Tensor  # [N + 1] int32, on the tokens' device
    max_seqlen: int
    slopes: Tensor | None  # [H] FP32, with ALiBi


class SeparateSegments(NamedTuple):
    """A pack, for ``scaled_dot_product_attention`` of one segment after another."""

    lengths: list[int]  # [N]
    biases: Tensor | None  # bias_table, with ALiBi


class PaddedBatch(NamedTuple):
    """Padded sequences, for one call of ``scaled_dot_product_attention``."""

    mask: Tensor  # [B, 1, 1, T] bool, False at padding; with ALiBi biases [B, H, T, T] FP32


Layout = TiledSegments | FlashSegments | SeparateSegments | PaddedBatch


def packed_layout(
    cu_seqlens: Tensor,
    max_seqlen: int,
    total: int,
    slopes: Tensor | None = None,
    *,
    dtype: torch.dtype,
    head_dim: int,
) -> Layout:
    """Return the layout of a pack for the fastest kernel that works; one layout serves all blocks.

    Args:
        cu_seqlens: ``[N + 1]`` int32, where each segment starts; the last entry is ``total``.
        max_seqlen: an upper bound of the segments' tokens.
        total: tokens of all segments.
        slopes: ``[H]`` FP32 of ALiBi; None for attention without biases.
        dtype: dtype of queries, keys and values.
        head_dim: width of a head.
    """
    case = Case(cu_seqlens.device, dtype, head_dim, slopes is not None)
    match packed_choice(case).kernel:
        case Kernel.TRITON:
            return TiledSegments(own_kernel.tiles_of(cu_seqlens, total), slopes)
        case Kernel.FLASH_ATTN | Kernel.TORCH_VARLEN as kernel:
            return FlashSegments(kernel, cu_seqlens, max_seqlen, slopes)
    # This is the only case in which the host waits for the device.
    biases = None if slopes is None else bias_table(slopes, max_seqlen)
    return SeparateSegments(cu_seqlens.diff().tolist(), biases)


def padded_layout(real: Tensor, slopes: Tensor | None = None) -> Layout:
    """Return the layout of padded sequences.

    Args:
        real: ``[B, T]`` bool, False at padding.
        slopes: ``[H]`` FP32 of ALiBi; None for attention without biases.
    """
    return PaddedBatch(real[:, None, None, :] if slopes is None else padded_biases(slopes, real))
