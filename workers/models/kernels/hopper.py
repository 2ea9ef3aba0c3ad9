"""Attention for Hopper, in Gluon: as in ``attention``, for heads of 64 in a fused QKV tensor.

Triton waits for each matrix product before it continues. Here the product with one block's values
runs during the softmax of the next block's scores, and Hopper's copy engine (TMA) loads keys and
values, which takes no registers or instructions of the threads. Measured on an H200 with the
segments of ``attention.STEPS``: 0.55 ms instead of 0.64, under constant load. Rotating the queries
in the kernel costs 0.03 ms; a separate pass takes 0.08.
"""

import math

import torch
from torch import Tensor

from workers.models.kernels import can_run, triton

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

#: Version of Triton that the kernel is tested with. Gluon is experimental: its names change (in 3.9
#: that of the copy), and the kernel's speed depends on where the compiler puts the waits.
TESTED_TRITON = "3.6."

HEAD_DIM = 64

#: Number of queries in a tile (``attention.BLOCK_M``), and of keys or values in a block. It equals
#: the head dimension, so that scores and results have the same layout.
BLOCK = 64

#: Number of blocks of keys, and of values, that are in shared memory or being loaded. Three are not
#: faster.
RING = 2

#: Number of warps, of which the matrix instruction of 64 rows takes four.
WARPS = 4


def takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Return whether the kernel supports queries of this dtype and head dimension."""
    if gluon is None or not triton.__version__.startswith(TESTED_TRITON):
        return False
    if not can_run(device, dtype) or head_dim != HEAD_DIM:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def rotary_attention(
    qkv: Tensor, heads: int, cos: Tensor | None, sin: Tensor | None, tiles: Tensor
) -> Tensor:
    """Return softmax attention, scaled by ``Dh ** -0.5``, within each segment.

    Scores, softmax and sums are FP32.

    Args:
        qkv: ``[T, 3 * H * 64]`` FP16 or BF16, contiguous: queries, keys and values of all heads.
            Keys have been rotated, queries have not.
        heads: H.
        cos, sin: ``[T, 1, 32]`` FP32, contiguous: the rotation of the queries (NeoX style); None if
            they are not to be rotated.
        tiles: the pack's ``attention.tiles_of``.

    Returns:
        ``[T, H, 64]``, contiguous; NaN at least at tokens whose query or key is not finite.
    """
    assert qkv.is_contiguous()
    assert qkv.shape[1] == 3 * heads * HEAD_DIM, (qkv.shape, heads)
    assert cos is None or cos.is_contiguous()
    assert sin is None or sin.is_contiguous()
    out = qkv.new_empty(len(qkv), heads, HEAD_DIM)
    layout = gl.NVMMASharedLayout.get_default_for([BLOCK, HEAD_DIM], gl.float16)  # or BF16's
    blocks = TensorDescriptor.from_tensor(qkv, [BLOCK, HEAD_DIM], layout)
    attend_tile[(len(tiles) * heads,)](
        *(qkv, blocks, out, cos, sin, tiles, heads),
        num_warps=WARPS,
    )
    return out


if gluon is not None:
    M = gl.constexpr(BLOCK)
    DIM = gl.constexpr(HEAD_DIM)
    SLOTS = gl.constexpr(RING)

    #: Scale of the scores, with the factor from powers of e to powers of 2, which are one
    #: instruction.
    SCALE = gl.constexpr(math.log2(math.e) * HEAD_DIM**-0.5)

    #: Layouts, that is which thread has which elements: the matrix instruction's result; its left
    #: operand; one number per row of the result; rows in memory; half rows in memory.
    RESULT = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, BLOCK, 16]))
    LEFT = gl.constexpr(gl.DotOperandLayout(0, RESULT.value, 2))
    PER_ROW = gl.constexpr(gl.SliceLayout(1, RESULT.value))
    ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [WARPS, 1], [1, 0]))
    HALVES = gl.constexpr(gl.BlockedLayout([1, 8], [8, 4], [WARPS, 1], [1, 0]))

    @gluon.jit  # type: ignore[untyped-decorator]
    def attend_tile(
        qkv: gl.tensor,
        blocks: tma.tensor_descriptor,  # of qkv
        out: gl.tensor,
        cos: gl.tensor,
        sin: gl.tensor,
        tiles: gl.tensor,
        heads: gl.tensor,
    ) -> None:
        """Attend with one head of one tile: its queries to all keys of its segment."""
        tile = gl.program_id(0) // heads
        head = gl.program_id(0) % heads
        start = gl.load(tiles + 3 * tile)
        length = gl.load(tiles + 3 * tile + 1)
        first = gl.load(tiles + 3 * tile + 2)
        if length == 0:
            return

        keys, keys_here = make_ring(blocks)
        values, values_here = make_ring(blocks)
        fence_async_shared()
        key_at = (heads + head) * DIM  # columns
        value_at = (2 * heads + head) * DIM
        count = gl.cdiv(length, M)
        for j in gl.static_range(SLOTS):
            fetch(blocks, keys, keys_here, j, start, count, key_at)
            fetch(blocks, values, values_here, j, start, count, value_at)

        queries, total = load_queries(qkv, cos, sin, start, length, first, heads, head)
        peak = gl.full([M], float("-inf"), gl.float32, PER_ROW)
        zeros = gl.zeros([M, DIM], gl.float32, RESULT)
        attended = zeros

        # The loop runs from the segment's last block to its first, since only the last one may
        # extend beyond the segment.
        left = length - (count - 1) * M
        await_block(keys_here, 0)
        scores = warpgroup_mma(queries, keys.index(0).permute((1, 0)), zeros, use_acc=False)
        fetch(blocks, keys, keys_here, SLOTS, start, count, key_at)
        column = gl.arange(0, M, gl.SliceLayout(0, RESULT))
        scores = gl.where((column < left)[None, :], scores, float("-inf"))
        weights, total, peak, _ = weigh(scores, total, peak, blocks.dtype)
        await_block(values_here, 0)
        clear_beyond(values.index(0), left)
        for j in range(1, count):
            await_block(keys_here, j)
            block = keys.index(j % SLOTS).permute((1, 0))
            coming = warpgroup_mma(queries, block, zeros, use_acc=False, is_async=True)
            await_block(values_here, j - 1)
            block = values.index((j - 1) % SLOTS)
            adding = warpgroup_mma(weights, block, attended, is_async=True)
            scores = warpgroup_mma_wait(1, deps=(coming,))
            # A fetch at this place, and no branch, keep the compiler from moving the wait for the
            # other product up to here.
            fetch(blocks, keys, keys_here, j + SLOTS, start, count, key_at)
            weights, total, peak, decay = weigh(scores, total, peak, blocks.dtype)
            attended = warpgroup_mma_wait(0, deps=(adding,)) * decay[:, None]
            fetch(blocks, values, values_here, j - 1 + SLOTS, start, count, value_at)
        await_block(values_here, count - 1)
        attended = warpgroup_mma(weights, values.index((count - 1) % SLOTS), attended)

        attended *= (1.0 / total)[:, None]  # faster than dividing every value
        attended = gl.convert_layout(attended.to(blocks.dtype), ROWS)
        row = first + gl.arange(0, M, gl.SliceLayout(1, ROWS))
        lane = gl.arange(0, DIM, gl.SliceLayout(0, ROWS))
        at = ((start + row).to(gl.int64) * heads + head) * DIM  # a pack may have over 2^31 values
        gl.store(out + at[:, None] + lane[None, :], attended, mask=(row < length)[:, None])

    @gluon.jit  # type: ignore[untyped-decorator]
    def make_ring(blocks: tma.tensor_descriptor) -> gl.shared_memory_descriptor:
        """Allocate shared memory for blocks of keys or values, and a barrier for each of them."""
        ring = gl.allocate_shared_memory(blocks.dtype, [SLOTS, M, DIM], blocks.layout)
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
    ) -> None:
        """Start to copy block ``j``, counted from the segment's end, to its slot, if it exists."""
        slot = j % SLOTS
        exists = j < count
        mbarrier.expect(here.index(slot), blocks.block_type.nbytes, pred=exists)
        tma.async_copy_global_to_shared(
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
    ) -> gl.tensor:
        """Return a tile's rotated queries ``[M, DIM]``, and initial totals ``[M]``: 0 or NaN.

        A total is NaN if the token's own query or key is not finite, as in
        ``attention.attend_tile``.
        """
        half: gl.constexpr = DIM // 2
        row = first + gl.arange(0, M, gl.SliceLayout(1, HALVES))
        lane = gl.arange(0, half, gl.SliceLayout(0, HALVES))[None, :]
        token = (start + row).to(gl.int64)[:, None]
        here = (row < length)[:, None]
        at = qkv + (token * 3 * heads + head) * DIM + lane
        a = gl.load(at, mask=here, other=0.0)
        b = gl.load(at + half, mask=here, other=0.0)
        own_a = gl.load(at + heads * DIM, mask=here, other=0.0)
        own_b = gl.load(at + heads * DIM + half, mask=here, other=0.0)
        if cos is not None:
            c = gl.load(cos + token * half + lane, mask=here, other=0.0)
            s = gl.load(sin + token * half + lane, mask=here, other=0.0)
            x, y = a.to(gl.float32), b.to(gl.float32)
            a, b = (x * c - y * s).to(a.dtype), (y * c + x * s).to(b.dtype)
        # 0 times a value that is not finite is NaN. In 16 bits, one instruction multiplies two.
        total = gl.sum(a * 0.0 + b * 0.0 + own_a * 0.0 + own_b * 0.0, 1).to(gl.float32)
        queries = gl.join(a, b).permute((0, 2, 1)).reshape((M, DIM))
        return gl.convert_layout(queries, LEFT), gl.convert_layout(total, PER_ROW)

    @gluon.jit  # type: ignore[untyped-decorator]
    def weigh(
        scores: gl.tensor, total: gl.tensor, peak: gl.tensor, dtype: gl.constexpr
    ) -> gl.tensor:
        """Return a block's weights, the running totals and peaks, and the decay of the results."""
        higher = gl.maximum(peak, gl.max(scores, 1) * SCALE)
        # Scaling here is free: with the subtraction it is one multiply-add.
        weights = gl.exp2(scores * SCALE - higher[:, None])
        decay = gl.exp2(peak - higher)
        total = total * decay + gl.sum(weights, 1)
        return gl.convert_layout(weights.to(dtype), LEFT), total, higher, decay

    @gluon.jit  # type: ignore[untyped-decorator]
    def clear_beyond(block: gl.shared_memory_descriptor, left: gl.tensor) -> None:
        """Zero the rows of a block that belong to the next segment, whose NaN would spread."""
        if left < M:
            row = gl.arange(0, M, gl.SliceLayout(1, ROWS))
            found = block.load(ROWS)
            block.store(gl.where((row < left)[:, None], found, 0.0))
            fence_async_shared()  # makes the store visible to matrix products
