"""Attention for Hopper, in Gluon: as in ``attention``, for heads in a fused QKV tensor.

Triton waits for each matrix product before it continues. Here the product with one block's values
runs during the softmax of the next block's scores, and Hopper's copy engine (TMA) loads keys and
values, which takes no registers or instructions of the threads. The queries are rotated on the way
in, which costs less than a separate pass over them (``docs/performance.md``).
"""

import math

import torch
from torch import Tensor

from workers.models.kernels import can_run

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.hopper import (
        fence_async_shared,
        mbarrier,
        tma,
        warpgroup_mma,
        warpgroup_mma_wait,
    )
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
except (ImportError, AttributeError):  # no Triton, or one with another version of Gluon
    gluon = None

#: Head dimensions that the kernel is written for: of 8M, of 35M (padded) and 150M, and of 650M, 3B,
#: ESM C and DNABERT-S.
HEAD_DIMS = (16, 32, 64)

#: Number of queries in a tile (``attention.BLOCK_M``), and of keys or values in a block.
BLOCK = 64

#: Number of blocks of keys, and of values, that are in shared memory or being loaded. Three are not
#: faster.
RING = 2

#: Number of warps, of which the matrix instruction of 64 rows takes four.
WARPS = 4


def takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether the kernel is written for queries of this dtype and head dimension."""
    if gluon is None or not can_run(device, dtype) or head_dim not in HEAD_DIMS:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def attention(
    qkv: Tensor,
    heads: int,
    tiles: Tensor,
    *,
    turns: tuple[Tensor, Tensor] | None = None,
    slopes: Tensor | None = None,
    scaled_dim: int | None = None,
) -> Tensor:
    """Return softmax attention within each segment.

    Scores, softmax and sums are FP32.

    Args:
        qkv: ``[T, 3 * H * Dh]`` FP16 or BF16, contiguous: queries, keys and values of all heads.
        heads: H.
        tiles: the pack's ``attention.tiles_of``.
        turns: cosines and sines ``[T, 1, Dh / 2]`` FP32, contiguous, by which queries are rotated
            (NeoX style); keys have been. None: neither is rotated here.
        slopes: ``[H]`` FP32: ``slope * |i - j|`` is subtracted from each score (ALiBi); or None.
        scaled_dim: the dimension by whose ``-0.5``th power scores are scaled, if it is not Dh: that
            of heads before they were padded.

    Returns:
        ``[T, H, Dh]``, contiguous; NaN at least at tokens whose query or key is not finite.
    """
    head_dim = qkv.shape[1] // (3 * heads)
    assert qkv.is_contiguous()
    assert head_dim in HEAD_DIMS, (qkv.shape, heads)
    cos, sin = turns or (None, None)
    assert cos is None or cos.is_contiguous()
    assert sin is None or sin.is_contiguous()
    out = qkv.new_empty(len(qkv), heads, head_dim)
    layout = gl.NVMMASharedLayout.get_default_for([BLOCK, head_dim], gl.float16)  # or BF16's
    blocks = TensorDescriptor.from_tensor(qkv, [BLOCK, head_dim], layout)
    attend_tile[(len(tiles) * heads,)](
        *(qkv, blocks, out, cos, sin, slopes, tiles, heads),
        dim=head_dim,
        root=(scaled_dim or head_dim) ** 0.5,
        num_warps=WARPS,
    )
    return out


if gluon is not None:
    # Newer versions of Triton have the first name, older ones the second.
    copy_to_shared = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared

    #: Factor from powers of e to powers of 2, which are one instruction.
    LOG2_E = gl.constexpr(math.log2(math.e))

    M = gl.constexpr(BLOCK)
    SLOTS = gl.constexpr(RING)

    #: Layouts, that is which thread has which elements: scores, as the matrix instruction leaves
    #: them; the left operand of a product; one number per row of scores.
    SCORES = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, BLOCK, 16]))
    LEFT = gl.constexpr(gl.DotOperandLayout(0, SCORES.value, 2))
    PER_ROW = gl.constexpr(gl.SliceLayout(1, SCORES.value))

    @gluon.constexpr_function  # type: ignore[untyped-decorator]
    def rows_of(dim: int) -> gl.BlockedLayout:
        """Return the layout of rows of ``dim`` values in memory: 8 of them, 16 bytes, a thread."""
        across = dim // 8
        return gl.BlockedLayout([1, 8], [32 // across, across], [WARPS, 1], [1, 0])

    @gluon.constexpr_function  # type: ignore[untyped-decorator]
    def result_of(dim: int) -> gl.NVMMADistributedLayout:
        """Return the layout in which the matrix instruction leaves rows of ``dim`` values."""
        return gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, dim, 16])

    @gluon.jit  # type: ignore[untyped-decorator]
    def attend_tile(
        qkv: gl.tensor,
        blocks: tma.tensor_descriptor,  # of qkv
        out: gl.tensor,
        cos: gl.tensor,
        sin: gl.tensor,
        slopes: gl.tensor,
        tiles: gl.tensor,
        heads: gl.tensor,
        dim: gl.constexpr,
        root: gl.constexpr,
    ) -> None:
        """Attend with one head of one tile: its queries to all keys of its segment."""
        scale: gl.constexpr = LOG2_E / root
        result: gl.constexpr = result_of(dim)
        weighing: gl.constexpr = gl.DotOperandLayout(0, result, 2)
        result_rows: gl.constexpr = gl.SliceLayout(1, result)
        tile = gl.program_id(0) // heads
        head = gl.program_id(0) % heads
        start = gl.load(tiles + 3 * tile)
        length = gl.load(tiles + 3 * tile + 1)
        first = gl.load(tiles + 3 * tile + 2)
        if length == 0:
            return

        keys, keys_here = make_ring(blocks, dim)
        values, values_here = make_ring(blocks, dim)
        fence_async_shared()
        key_at = (heads + head) * dim  # columns
        value_at = (2 * heads + head) * dim
        count = gl.cdiv(length, M)
        for j in gl.static_range(SLOTS):
            fetch(blocks, keys, keys_here, j, start, count, key_at, dim)
            fetch(blocks, values, values_here, j, start, count, value_at, dim)

        queries, total = load_queries(qkv, cos, sin, start, length, first, heads, head, dim)
        slope = 0.0
        if slopes is not None:
            slope = gl.load(slopes + head) * root
        peak = gl.full([M], float("-inf"), gl.float32, PER_ROW)
        nothing = gl.zeros([M, M], gl.float32, SCORES)
        attended = gl.zeros([M, dim], gl.float32, result)

        # The loop runs from the segment's last block to its first, since only the last one may
        # extend beyond the segment.
        left = length - (count - 1) * M
        await_block(keys_here, 0)
        scores = warpgroup_mma(queries, keys.index(0).permute((1, 0)), nothing, use_acc=False)
        fetch(blocks, keys, keys_here, SLOTS, start, count, key_at, dim)
        row = gl.arange(0, M, PER_ROW)
        column = gl.arange(0, M, gl.SliceLayout(0, SCORES))
        distance = (first + row)[:, None] - (column + (count - 1) * M)[None, :]
        scores = biased(scores, slopes, slope, distance)
        scores = gl.where((column < left)[None, :], scores, float("-inf"))
        weights, total, peak, _ = weigh(scores, total, peak, scale, blocks.dtype)
        await_block(values_here, 0)
        clear_beyond(values.index(0), left, dim)
        for j in range(1, count):
            await_block(keys_here, j)
            block = keys.index(j % SLOTS).permute((1, 0))
            coming = warpgroup_mma(queries, block, nothing, use_acc=False, is_async=True)
            await_block(values_here, j - 1)
            block = values.index((j - 1) % SLOTS)
            weights = gl.convert_layout(weights, weighing)
            adding = warpgroup_mma(weights, block, attended, is_async=True)
            scores = warpgroup_mma_wait(1, deps=(coming,))
            # A fetch at this place, and no branch, keep the compiler from moving the wait for the
            # other product up to here.
            fetch(blocks, keys, keys_here, j + SLOTS, start, count, key_at, dim)
            scores = biased(scores, slopes, slope, distance + j * M)
            weights, total, peak, decay = weigh(scores, total, peak, scale, blocks.dtype)
            decay = gl.convert_layout(decay, result_rows)
            attended = warpgroup_mma_wait(0, deps=(adding,)) * decay[:, None]
            fetch(blocks, values, values_here, j - 1 + SLOTS, start, count, value_at, dim)
        await_block(values_here, count - 1)
        weights = gl.convert_layout(weights, weighing)
        attended = warpgroup_mma(weights, values.index((count - 1) % SLOTS), attended)

        share = gl.convert_layout(1.0 / total, result_rows)
        attended *= share[:, None]  # faster than dividing every value
        rows: gl.constexpr = rows_of(dim)
        attended = gl.convert_layout(attended.to(blocks.dtype), rows)
        row = first + gl.arange(0, M, gl.SliceLayout(1, rows))
        lane = gl.arange(0, dim, gl.SliceLayout(0, rows))
        at = ((start + row).to(gl.int64) * heads + head) * dim  # a pack may have over 2^31 values
        gl.store(out + at[:, None] + lane[None, :], attended, mask=(row < length)[:, None])

    @gluon.jit  # type: ignore[untyped-decorator]
    def make_ring(blocks: tma.tensor_descriptor, dim: gl.constexpr) -> gl.shared_memory_descriptor:
        """Allocate shared memory for blocks of keys or values, and a barrier for each of them."""
        ring = gl.allocate_shared_memory(blocks.dtype, [SLOTS, M, dim], blocks.layout)
        here = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
        for slot in gl.static_range(SLOTS):
            mbarrier.init(here.index(slot), count=1)
        return ring, here

    @gluon.jit  # type: ignore[untyped-decorator]
    def fetch(
        blocks: tma.tensor_descriptor,
        ring: gl.shared_memory_descriptor,
        here: gl.shared_memory_descriptor,
        j: gl.tensor,
        start: gl.tensor,
        count: gl.tensor,
        column: gl.tensor,
        dim: gl.constexpr,
    ) -> None:
        """Start to copy block ``j``, counted from the segment's end, to its slot, if it exists."""
        slot = j % SLOTS
        exists = j < count
        mbarrier.expect(here.index(slot), M * dim * 2, pred=exists)  # bytes
        copy_to_shared(
            *(blocks, [start + (count - 1 - j) * M, column], here.index(slot), ring.index(slot)),
            pred=exists,
        )

    @gluon.jit  # type: ignore[untyped-decorator]
    def await_block(here: gl.shared_memory_descriptor, j: gl.tensor) -> None:
        mbarrier.wait(here.index(j % SLOTS), (j // SLOTS) & 1)

    @gluon.jit  # type: ignore[untyped-decorator]
    def load_queries(
        qkv: gl.tensor,
        cos: gl.tensor,
        sin: gl.tensor,
        start: gl.tensor,
        length: gl.tensor,
        first: gl.tensor,
        heads: gl.tensor,
        head: gl.tensor,
        dim: gl.constexpr,
    ) -> gl.tensor:
        """Return a tile's rotated queries ``[M, dim]``, and initial totals ``[M]``: 0 or NaN.

        A total is NaN if the token's own query or key is not finite, as in
        ``attention.attend_tile``.
        """
        half: gl.constexpr = dim // 2
        halves: gl.constexpr = rows_of(half)
        row = first + gl.arange(0, M, gl.SliceLayout(1, halves))
        lane = gl.arange(0, half, gl.SliceLayout(0, halves))[None, :]
        token = (start + row).to(gl.int64)[:, None]
        here = (row < length)[:, None]
        at = qkv + (token * 3 * heads + head) * dim + lane
        a = gl.load(at, mask=here, other=0.0)
        b = gl.load(at + half, mask=here, other=0.0)
        own_a = gl.load(at + heads * dim, mask=here, other=0.0)
        own_b = gl.load(at + heads * dim + half, mask=here, other=0.0)
        if cos is not None:
            c = gl.load(cos + token * half + lane, mask=here, other=0.0)
            s = gl.load(sin + token * half + lane, mask=here, other=0.0)
            x, y = a.to(gl.float32), b.to(gl.float32)
            a, b = (x * c - y * s).to(a.dtype), (y * c + x * s).to(b.dtype)
        # 0 times a value that is not finite is NaN. In 16 bits, one instruction multiplies two.
        total = gl.sum(a * 0.0 + b * 0.0 + own_a * 0.0 + own_b * 0.0, 1).to(gl.float32)
        queries = gl.join(a, b).permute((0, 2, 1)).reshape((M, dim))
        return gl.convert_layout(queries, LEFT), gl.convert_layout(total, PER_ROW)

    @gluon.jit  # type: ignore[untyped-decorator]
    def biased(
        scores: gl.tensor, slopes: gl.tensor, slope: gl.tensor, distance: gl.tensor
    ) -> gl.tensor:
        """Return unscaled scores with ALiBi, if there are slopes."""
        if slopes is not None:
            scores -= slope * gl.abs(distance.to(gl.float32))  # exact to 2^24
        return scores

    @gluon.jit  # type: ignore[untyped-decorator]
    def weigh(
        scores: gl.tensor,
        total: gl.tensor,
        peak: gl.tensor,
        scale: gl.constexpr,
        dtype: gl.constexpr,
    ) -> gl.tensor:
        """Return a block's weights, the running totals and peaks, and the decay of the results."""
        higher = gl.maximum(peak, gl.max(scores, 1) * scale)
        # Scaling here is free: with the subtraction it is one multiply-add.
        weights = gl.exp2(scores * scale - higher[:, None])
        decay = gl.exp2(peak - higher)
        total = total * decay + gl.sum(weights, 1)
        return gl.convert_layout(weights.to(dtype), LEFT), total, higher, decay

    @gluon.jit  # type: ignore[untyped-decorator]
    def clear_beyond(
        block: gl.shared_memory_descriptor, left: gl.tensor, dim: gl.constexpr
    ) -> None:
        """Zero the rows of a block that belong to the next segment, whose NaN would spread."""
        if left < M:
            rows: gl.constexpr = rows_of(dim)
            row = gl.arange(0, M, gl.SliceLayout(1, rows))
            found = block.load(rows)
            block.store(gl.where((row < left)[:, None], found, 0.0))
            fence_async_shared()  # makes the store visible to matrix products
