"""Attention with linear biases (ALiBi), by the fastest exact kernel that the machine has.

On CUDA in FP16 and BF16 that is our Triton kernel, or ``flash_attn`` where Triton is not to be
had (the FlashAttention inside PyTorch knows no ALiBi); everywhere else
``scaled_dot_product_attention`` in FP32. All have an FP32 softmax.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.models.attention.plain import FLASH_ATTN, can_run, nan_beyond
from workers.models.encoder import ExactBuffers
from workers.models.kernels import attention as own_kernel

#: Queries that ``scaled_dot_product_attention`` takes at once: what it needs for its biases then
#: grows with a segment's length and not with the length's square.
QUERIES = 256


class Alibi(ExactBuffers):
    """The slopes ``[H]``, in FP32 whatever the model's dtype."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(heads))


def alibi_slopes(heads: int) -> Tensor:
    """One slope per head ``[H]``, FP32 (Press et al. 2022 and the code they published).

    ``2 ** (-8 h / H)`` for H a power of two; else those of the next lower power, and then every
    other one of the next higher power.
    """
    lower = 1 << (heads.bit_length() - 1)
    steps = [(h + 1) / lower for h in range(lower)]
    steps += [(2 * h + 1) / (2 * lower) for h in range(heads - lower)]
    return torch.exp2(-8 * torch.tensor(steps, dtype=torch.float32))


# --- layouts: who sees whom, in the form that one kernel takes --------------------------------


class TiledSegments(NamedTuple):
    """A pack, for our Triton kernel."""

    tiles: Tensor  # own_kernel.tiles_of
    slopes: Tensor  # [H] FP32


class FlashSegments(NamedTuple):
    """A pack, for ``flash_attn``."""

    cu_seqlens: Tensor  # [N + 1] int32
    max_seqlen: int
    slopes: Tensor  # [H] FP32


class BiasedSegments(NamedTuple):
    """A pack, for ``scaled_dot_product_attention``."""

    lengths: list[int]  # [N]
    biases: Tensor  # bias_table


class BiasedBatch(NamedTuple):
    """Padded sequences, for ``scaled_dot_product_attention``."""

    bias: Tensor  # [B, H, T, T] FP32, -inf at keys that are padding


Layout = TiledSegments | FlashSegments | BiasedSegments | BiasedBatch


def packed_layout(
    slopes: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    total: int,
    *,
    dtype: torch.dtype,
    head_dim: int,
) -> Layout:
    """The layout of a pack for the fastest kernel there is; made once and used in every block.

    Args:
        slopes: ``[H]`` FP32.
        cu_seqlens: ``[N + 1]`` int32, where each segment starts; the last entry is ``total``.
        max_seqlen: at least the longest segment's tokens.
        total: tokens of all segments.
        dtype: of queries, keys and values.
        head_dim: their width.
    """
    device = cu_seqlens.device
    if own_kernel.takes(device, dtype, head_dim):
        return TiledSegments(own_kernel.tiles_of(cu_seqlens, total), slopes)
    if can_run(FLASH_ATTN, device, dtype, head_dim):
        return FlashSegments(cu_seqlens, max_seqlen, slopes)
    # The only layout that waits for the device.
    return BiasedSegments(cu_seqlens.diff().tolist(), bias_table(slopes, max_seqlen))


def padded_layout(slopes: Tensor, real: Tensor) -> Layout:
    """The layout of sequences padded to one length; ``real`` ``[B, T]`` is False at padding."""
    position = torch.arange(real.shape[1], device=real.device)
    distance = (position[:, None] - position).abs()  # [T, T]
    bias = -slopes[:, None, None] * distance  # [H, T, T]
    return BiasedBatch(torch.where(real[:, None, None, :], bias, float("-inf")))


def bias_table(slopes: Tensor, max_seqlen: int) -> Tensor:
    """Biases of ``QUERIES`` queries, of which those of any part of any segment are a view.

    A bias is a function of the distance alone. Row i, column c of ``[H, QUERIES, 2 C]`` has that
    of query i and key c - C, both counted from the part's first query; C is ``max_seqlen``, rounded
    up to a multiple of ``QUERIES``, which also keeps the rows of every view aligned.
    """
    reach = -(-max_seqlen // QUERIES) * QUERIES
    query = torch.arange(QUERIES, device=slopes.device)
    key = torch.arange(-reach, reach, device=slopes.device)
    return -slopes[:, None, None] * (query[:, None] - key).abs()


# --- attention --------------------------------------------------------------------------------


def alibi_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """``softmax(q k' / sqrt(Dh) - slope * |i - j|) v`` within each segment or sequence.

    Args:
        q, k, v: ``[T, H, Dh]`` for a pack's layout, ``[B, T, H, Dh]`` for a padded one's.
        layout: which tokens may see each other; of ``packed_layout`` or ``padded_layout``.

    Returns:
        The attended values, shaped as ``q``: NaN where a query or key is not finite.
    """
    if isinstance(layout, TiledSegments):
        return own_kernel.varlen_attention(q, k, v, *layout)
    if isinstance(layout, FlashSegments):
        return flash_attention(q, k, v, layout)
    if isinstance(layout, BiasedSegments):
        return segment_attention(q, k, v, layout)
    return biased_attention(q, k, v, layout.bias)


def flash_attention(q: Tensor, k: Tensor, v: Tensor, layout: FlashSegments) -> Tensor:
    assert FLASH_ATTN is not None
    q, k = (nan_beyond(t, t.dtype) for t in (q, k))
    bounds = (layout.cu_seqlens,) * 2 + (layout.max_seqlen,) * 2
    return FLASH_ATTN(q, k, v, *bounds, alibi_slopes=layout.slopes)


def segment_attention(q: Tensor, k: Tensor, v: Tensor, layout: BiasedSegments) -> Tensor:
    q, k, v = (t[None] for t in (q, k, v))  # [1, T, H, Dh]
    out = torch.empty_like(q)
    start = 0
    for length in layout.lengths:
        keys, values = (t[:, start : start + length] for t in (k, v))
        for first in range(0, length, QUERIES):
            part = slice(start + first, start + min(first + QUERIES, length))
            bias = biases_of(layout.biases, part.stop - part.start, first, length)
            out[:, part] = biased_attention(q[:, part], keys, values, bias)
        start += length
    return out[0]


def biases_of(table: Tensor, queries: int, first: int, length: int) -> Tensor:
    """Biases ``[1, H, queries, L]`` of some queries of a segment of ``length``, from ``first``."""
    origin = table.shape[2] // 2 - first
    return table[None, :, :queries, origin : origin + length]


def biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention ``[B, L, H, Dh]`` with biases ``[B, H, L, S]``, in FP32 throughout.

    A bias near -10 would be off by up to 0.004 in FP16 and by 0.03 in BF16.
    """
    q32, k32, v32 = (t.transpose(1, 2).float() for t in (q, k, v))  # [B, H, L, Dh]
    q32, k32 = nan_beyond(q32, q.dtype), nan_beyond(k32, k.dtype)
    attended = F.scaled_dot_product_attention(q32, k32, v32, attn_mask=bias)
    return attended.transpose(1, 2).to(q.dtype)
