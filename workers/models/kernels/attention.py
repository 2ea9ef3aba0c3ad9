"""Self-attention over segments of any lengths, as one Triton kernel.

It has the online softmax of FlashAttention (Dao 2023), forward only, without a causal mask, with or
without ALiBi. It is faster than the libraries' kernels for packs of hundreds of short segments,
because its tiles are small, those of the longest segments start first, and only the last block of a
segment is padded.
"""

import math

import torch
from torch import Tensor

from workers.models.kernels import can_run, triton

if triton is not None:
    import triton.language as tl

#: Number of queries in a tile. Larger tiles would be mostly empty for short segments.
BLOCK_M = 64

#: Number of warps, of which Hopper's matrix instruction of 64 rows takes four.
WARPS = 4

#: Number of keys per step, and of steps whose keys and values are loaded ahead, by head dimension
#: (rounded up to a power of 2). They are the fastest on an H200 for segments of 30 to 1022 tokens
#: (``docs/performance.md``); at 128, the largest that fit GPUs with 100 KiB of shared memory.
STEPS = {16: (64, 3), 32: (64, 3), 64: (32, 4), 128: (32, 3)}


def takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether the kernel supports queries of this dtype and head dimension."""
    return can_run(device, dtype) and padded_dim(head_dim) in STEPS


def padded_dim(head_dim: int) -> int:
    """Return the next power of 2, at least the 16 that matrix units need."""
    return max(16, 1 << (head_dim - 1).bit_length())


def tiles_of(cu_seqlens: Tensor, total: int) -> Tensor:
    """Split every segment's queries into tiles of ``BLOCK_M``, without waiting for the device.

    Only the device knows the number of tiles, so the table has as many rows as there could be;
    unused rows have length 0.

    Args:
        cu_seqlens: ``[N + 1]`` int32, where each segment starts; the last entry is ``total``.
        total: tokens of all segments.

    Returns:
        ``[tiles, 3]`` int32: the segment's start, its length, and the tile's first query in it.
        Tiles of longer segments come first, since they take the longest.
    """
    lengths, order = cu_seqlens.diff().sort(descending=True)
    starts = cu_seqlens[:-1][order]
    counts = (lengths + BLOCK_M - 1) // BLOCK_M
    ends = counts.cumsum(0)
    most = -(-total // BLOCK_M) + len(lengths)
    tile = torch.arange(most, device=cu_seqlens.device)
    segment = torch.searchsorted(ends, tile, right=True)
    used = segment < len(lengths)
    segment = segment.clamp(max=len(lengths) - 1)
    first = (tile - (ends - counts)[segment]) * BLOCK_M
    table = torch.stack((starts[segment], lengths[segment], first), dim=1)
    return torch.where(used[:, None], table, 0).int()


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: Tensor,
    slopes: Tensor | None,
    scaled_dim: int | None = None,
) -> Tensor:
    """Return softmax attention within each segment.

    Scores, softmax and sums are FP32.

    Args:
        q, k, v: ``[T, H, Dh]`` FP16 or BF16, Dh up to 128; the last dimension is contiguous, as in
            a view of a fused tensor.
        tiles: the pack's ``tiles_of``.
        slopes: ``[H]`` FP32: ``slope * |i - j|`` is subtracted from each score (ALiBi); or None.
        scaled_dim: the dimension by whose ``-0.5``th power scores are scaled, if it is not Dh: that
            of heads before they were padded.

    Returns:
        ``[T, H, Dh]``, contiguous; NaN at least at tokens whose query or key is not finite.
    """
    _, heads, head_dim = q.shape
    assert q.stride(2) == k.stride(2) == v.stride(2) == 1, (q.stride(), k.stride(), v.stride())
    out = q.new_empty(q.shape)
    block_n, stages = STEPS[padded_dim(head_dim)]
    # The grid has one dimension: the others are limited to 65,535.
    attend_tile[(len(tiles) * heads,)](
        *(q, k, v, out, tiles, slopes, heads),
        *(*q.stride()[:2], *k.stride()[:2], *v.stride()[:2]),
        head_dim=head_dim,
        lanes=padded_dim(head_dim),
        root=(scaled_dim or head_dim) ** 0.5,
        block_m=BLOCK_M,
        block_n=block_n,
        has_alibi=slopes is not None,
        num_warps=WARPS,
        num_stages=stages,
    )
    return out


if triton is not None:
    #: Factor from powers of e to powers of 2, which are one instruction.
    LOG2_E = tl.constexpr(math.log2(math.e))

    @triton.jit  # type: ignore[untyped-decorator]
    def attend_tile(
        q: tl.tensor,
        k: tl.tensor,
        v: tl.tensor,
        out: tl.tensor,
        tiles: tl.tensor,
        slopes: tl.tensor,
        heads: tl.tensor,
        q_token: tl.tensor,  # strides
        q_head: tl.tensor,
        k_token: tl.tensor,
        k_head: tl.tensor,
        v_token: tl.tensor,
        v_head: tl.tensor,
        head_dim: tl.constexpr,
        lanes: tl.constexpr,
        root: tl.constexpr,
        block_m: tl.constexpr,
        block_n: tl.constexpr,
        has_alibi: tl.constexpr,
    ) -> None:
        """Attend with one head of one tile: its queries to all keys of its segment."""
        tile = tl.program_id(0) // heads
        head = tl.program_id(0) % heads
        start = tl.load(tiles + 3 * tile).to(tl.int64)  # a pack may have more than 2^31 values
        length = tl.load(tiles + 3 * tile + 1)
        first = tl.load(tiles + 3 * tile + 2)
        if length == 0:
            return

        row = tl.arange(0, block_m)
        column = tl.arange(0, block_n)
        lane = tl.arange(0, lanes)[None, :]
        in_head = lane < head_dim  # always, where the dimension is a power of 2
        q_at = q + (start + first) * q_token + head * q_head + row[:, None] * q_token + lane
        own_at = k + (start + first) * k_token + head * k_head + row[:, None] * k_token + lane
        k_at = k + start * k_token + head * k_head + column[:, None] * k_token + lane
        v_at = v + start * v_token + head * v_head + column[:, None] * v_token + lane
        queries_here = (first + row < length)[:, None] & in_head
        queries = tl.load(q_at, mask=queries_here, other=0.0)
        own_keys = tl.load(own_at, mask=queries_here, other=0.0)

        scale: tl.constexpr = LOG2_E / root
        slope = tl.load(slopes + head) * root if has_alibi else 0.0
        i = (first + row).to(tl.float32)  # exact to 2^24
        values = tl.zeros([block_m, lanes], tl.float32)
        # A key whose scores are all -Inf has weights of 0, so the result would be finite as if the
        # key were absent. So every token's own query and key are tested, which costs less than
        # testing all scores: 0 times a value that is not finite makes the token's total NaN.
        total = tl.sum(queries.to(tl.float32) * 0.0 + own_keys.to(tl.float32) * 0.0, 1)
        peak = tl.full([block_m], float("-inf"), tl.float32)

        last = (length - 1) // block_n * block_n  # every block of keys before this one is whole
        for j in range(0, last, block_n):
            keys = load_block(k_at, in_head, head_dim == lanes)
            scores = score(queries, keys, i, j + column, slope, has_alibi)
            block = load_block(v_at, in_head, head_dim == lanes)
            values, total, peak = fold(values, total, peak, scores, block, scale)
            k_at += block_n * k_token
            v_at += block_n * v_token
        keys_here = last + column < length
        keys = tl.load(k_at, mask=keys_here[:, None] & in_head, other=0.0)
        scores = score(queries, keys, i, last + column, slope, has_alibi)
        scores = tl.where(keys_here[None, :], scores, float("-inf"))
        # A value outside the segment may be NaN, which a weight of 0 does not remove.
        block = tl.load(v_at, mask=keys_here[:, None] & in_head, other=0.0)
        values, total, _ = fold(values, total, peak, scores, block, scale)

        out_token = heads * head_dim
        out_at = (
            out + (start + first) * out_token + head * head_dim + row[:, None] * out_token + lane
        )
        attended = (values / total[:, None]).to(out.dtype.element_ty)
        tl.store(out_at, attended, mask=queries_here)

    @triton.jit  # type: ignore[untyped-decorator]
    def load_block(at: tl.tensor, in_head: tl.tensor, whole: tl.constexpr) -> tl.tensor:
        """Load a block of keys or values that lies within its segment."""
        if whole:
            return tl.load(at)
        return tl.load(at, mask=in_head, other=0.0)

    @triton.jit  # type: ignore[untyped-decorator]
    def score(
        queries: tl.tensor,
        keys: tl.tensor,
        i: tl.tensor,
        j: tl.tensor,
        slope: tl.tensor,
        has_alibi: tl.constexpr,
    ) -> tl.tensor:
        """Return the unscaled scores ``[M, N]`` of queries at ``i`` and keys at ``j``."""
        scores = tl.dot(queries, tl.trans(keys))
        if has_alibi:
            scores -= slope * tl.abs(i[:, None] - j.to(tl.float32)[None, :])
        return scores

    @triton.jit  # type: ignore[untyped-decorator]
    def fold(
        values: tl.tensor,
        total: tl.tensor,
        peak: tl.tensor,
        scores: tl.tensor,
        block: tl.tensor,
        scale: tl.constexpr,
    ) -> tl.tensor:
        """Add one block of keys' values to the running sums of the softmax."""
        higher = tl.maximum(peak, tl.max(scores, 1) * scale)
        # Scaling here is free: with the subtraction it is one multiply-add.
        weights = tl.exp2(scores * scale - higher[:, None])
        decay = tl.exp2(peak - higher)
        total = total * decay + tl.sum(weights, 1)
        values = tl.dot(weights.to(block.dtype), block, values * decay[:, None])
        return values, total, higher
