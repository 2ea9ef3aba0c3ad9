"""LayerNorm, a linear layer, and rotary embedding or GELU, as one kernel for Hopper, in Gluon.

For narrow models the product reads and writes memory for as long as it multiplies, so that passes
over memory before and after it cost as much as the product itself. Here each group of four warps
has 64 rows, which it norms and then holds in registers, and multiplies by the weights, 64 outputs
at a time; one more warp loads blocks of 64 rows, of the input and of the weights, into a ring in
shared memory. The groups take turns with the matrix units: while one multiplies, the others rotate
or activate, and store, what they multiplied before (the "ping-pong" of FlashAttention-3, Shah et
al. 2024). Wider rows do not fit the registers.
"""

import torch
from torch import Tensor, nn

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

    from workers.models.kernels.row_blocks import (
        COLUMNS,
        LEFT,
        RESULTS,
        ROWS,
        gelu,
        load_turns,
        norm_block,
        rotate,
    )
except (ImportError, AttributeError):  # no Triton, or one with another version of Gluon
    gluon = None

#: Widths of the input for which this is faster than separate kernels on an H100
#: (``docs/performance.md``): that of ESM-2 8M.
DIMS = (320,)

#: Widths of heads that 64 columns hold.
HEAD_DIMS = (16, 32, 64)

#: Number of groups of four warps: each has two thirds of the time for what is not multiplying.
GROUPS = 3

#: Number of registers of a thread in a group, and of one in the warp that loads: 512 for the four.
REGISTERS = (152, 56)

#: Number of blocks in shared memory, or being loaded: 160 KiB of them.
RING = 4

#: Number of blocks of results of a group that are being stored: 16 KiB of them.
STORING = 2


def takes(device: torch.device, dtype: torch.dtype, dim: int, head_dim: int) -> bool:
    """Return whether the kernel is written for inputs of this dtype and width, and such heads."""
    if gluon is None or not can_run(device, dtype):
        return False
    is_hopper = torch.cuda.get_device_capability(device)[0] == 9
    return is_hopper and dim in DIMS and head_dim in HEAD_DIMS


def norm_linear_rotate(
    x: Tensor,
    norm: nn.LayerNorm,
    plus: Tensor,
    linear: nn.Linear,
    heads: int,
    turns: tuple[Tensor, Tensor],
) -> Tensor:
    """Return ``linear(norm(x + plus))`` with the two halves of queries and keys rotated (NeoX).

    All but the product's operands is FP32.

    Args:
        x: ``[T, D]`` FP16 or BF16, contiguous.
        norm: a LayerNorm over D, with a weight and a bias.
        plus: ``[D]`` FP32.
        linear: from D to queries, keys and values of all heads, ``3 * H * Dh``, with a bias.
        heads: H.
        turns: cosines and sines ``[T, 1, Dh / 2]`` FP32, contiguous.

    Returns:
        ``[T, 3 * H * Dh]``; a row with a value that is not finite is NaN.
    """
    cos, sin = turns
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    half = cos.shape[-1]
    return launch(x, norm, plus, linear, cos, sin, half=half, rotated=4 * heads * half)


def norm_linear_gelu(x: Tensor, norm: nn.LayerNorm, plus: Tensor, linear: nn.Linear) -> Tensor:
    """Return ``gelu(linear(norm(x + plus)))`` with GELU's tanh form; see ``norm_linear_rotate``."""
    return launch(x, norm, plus, linear, None, None, half=0, rotated=0)


def launch(
    x: Tensor,
    norm: nn.LayerNorm,
    plus: Tensor,
    linear: nn.Linear,
    cos: Tensor | None,
    sin: Tensor | None,
    *,
    half: int,
    rotated: int,
) -> Tensor:
    total, dim = x.shape
    outputs = linear.out_features
    block = [ROWS.value, COLUMNS.value]
    assert x.is_contiguous()
    assert dim % block[1] == outputs % block[0] == rotated % block[0] == 0, (dim, outputs, rotated)
    out = x.new_empty(total, outputs)
    layout = gl.NVMMASharedLayout.get_default_for(block, gl.float16)  # or BF16's
    tensors = x, linear.weight, out
    descriptors = (TensorDescriptor.from_tensor(tensor, block, layout) for tensor in tensors)
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count
    tiles = -(-total // (GROUPS * block[0]))
    norm_linear_rows[(min(tiles, processors),)](
        *(*descriptors, plus, norm.weight, norm.bias, linear.bias, cos, sin, total, norm.eps),
        dim=dim,
        outputs=outputs,
        half=half,
        rotated=rotated,
        num_warps=4,
    )
    return out


if gluon is not None:
    # Newer versions of Triton have the first names, older ones the second.
    copy_to_shared = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
    copy_to_global = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
    await_group = getattr(gl, "barrier", None) or gl.thread_barrier

    SLOTS = gl.constexpr(RING)
    STAGES = gl.constexpr(STORING)
    COUNT = gl.constexpr(GROUPS)
    OF_GROUP, OF_LOADER = (gl.constexpr(count) for count in REGISTERS)

    @gluon.jit(do_not_specialize=["total"])  # type: ignore[untyped-decorator]
    def norm_linear_rows(
        x: tma.tensor_descriptor,
        weight: tma.tensor_descriptor,
        out: tma.tensor_descriptor,
        plus: gl.tensor,
        gamma: gl.tensor,
        beta: gl.tensor,
        bias: gl.tensor,
        cos: gl.tensor,
        sin: gl.tensor,
        total: gl.tensor,
        eps: gl.tensor,
        dim: gl.constexpr,
        outputs: gl.constexpr,
        half: gl.constexpr,
        rotated: gl.constexpr,
    ) -> None:
        """Compute every n-th tile of 64 rows for each group, of n programs."""
        chunks: gl.constexpr = dim // COLUMNS
        blocks = gl.allocate_shared_memory(x.dtype, [SLOTS * chunks, ROWS, COLUMNS], x.layout)
        staged = gl.allocate_shared_memory(x.dtype, [COUNT * STAGES, ROWS, COLUMNS], out.layout)
        full, empty = make_barriers(SLOTS, 1), make_barriers(SLOTS, COUNT)
        turn = make_barriers(COUNT, 1)
        fence_async_shared()
        memory = (blocks, full, empty, turn, staged)
        affine = (plus, gamma, beta, bias, eps)
        gl.warp_specialize(
            [
                (multiply, (0, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (multiply, (1, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (multiply, (2, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (load, (x, weight, memory, total, dim, outputs)),
            ],
            [4, 4, 1],
            [OF_GROUP, OF_GROUP, OF_LOADER],
        )

    @gluon.jit  # type: ignore[untyped-decorator]
    def make_barriers(count: gl.constexpr, arrivals: gl.constexpr) -> gl.shared_memory_descriptor:
        barriers = gl.allocate_shared_memory(gl.int64, [count, 1], mbarrier.MBarrierLayout())
        for k in gl.static_range(count):
            mbarrier.init(barriers.index(k), count=arrivals)
        return barriers

    @gluon.jit  # type: ignore[untyped-decorator]
    def load(
        x: tma.tensor_descriptor,
        weight: tma.tensor_descriptor,
        memory: gl.tuple,
        total: gl.tensor,
        dim: gl.constexpr,
        outputs: gl.constexpr,
    ) -> None:
        """Load blocks into the ring: for each tile the input of each group, then all weights."""
        at = 0
        tiles = gl.cdiv(total, COUNT * ROWS)
        for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
            for group in gl.static_range(COUNT):
                load_block(x, tile * COUNT + group, memory, at, dim)
                at += 1
            for n in range(outputs // ROWS):
                load_block(weight, n, memory, at, dim)
                at += 1

    @gluon.jit  # type: ignore[untyped-decorator]
    def load_block(
        source: tma.tensor_descriptor,
        block: gl.tensor,
        memory: gl.tuple,
        at: gl.tensor,
        dim: gl.constexpr,
    ) -> None:
        """Start to copy a block to its place in the ring, once all groups have left it."""
        chunks: gl.constexpr = dim // COLUMNS
        blocks, full, empty, _, _ = memory
        slot = at % SLOTS
        mbarrier.wait(empty.index(slot), ((at // SLOTS) & 1) ^ 1)
        mbarrier.expect(full.index(slot), ROWS * dim * 2)  # bytes
        for k in gl.static_range(chunks):
            place = blocks.index(slot * chunks + k)
            copy_to_shared(source, [block * ROWS, k * COLUMNS], full.index(slot), place)

    @gluon.jit  # type: ignore[untyped-decorator]
    def await_block(full: gl.shared_memory_descriptor, at: gl.tensor) -> None:
        mbarrier.wait(full.index(at % SLOTS), (at // SLOTS) & 1)

    @gluon.jit  # type: ignore[untyped-decorator]
    def multiply(
        group: gl.constexpr,
        memory: gl.tuple,
        out: tma.tensor_descriptor,
        affine: gl.tuple,
        cos: gl.tensor,
        sin: gl.tensor,
        total: gl.tensor,
        dim: gl.constexpr,
        outputs: gl.constexpr,
        half: gl.constexpr,
        rotated: gl.constexpr,
    ) -> None:
        """Compute the rows of a group: 64 of each tile."""
        chunks: gl.constexpr = dim // COLUMNS
        nothing = gl.zeros([ROWS, ROWS], gl.float32, RESULTS)
        column = gl.arange(0, ROWS, gl.SliceLayout(0, RESULTS))
        blocks, full, empty, turn, staged = memory
        _, _, _, bias, _ = affine
        tiles = gl.cdiv(total, COUNT * ROWS)
        at, done = 0, 0
        for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
            for owner in gl.static_range(COUNT):
                await_block(full, at)
                if owner == group:
                    first = at % SLOTS * chunks
                    norm_block(blocks, first, affine, dim)
                    rows = ()
                    for k in gl.static_range(chunks):
                        rows += (blocks.index(first + k).load(LEFT),)  # type: ignore[assignment]
                    fence_async_shared()  # orders this before the next copy to the slot
                    await_group()
                mbarrier.arrive(empty.index(at % SLOTS), count=1)
                at += 1
            row = (tile * COUNT + group) * ROWS
            if half > 0:
                c, s = load_turns(cos, sin, row, total, half)
            for n in range(outputs // ROWS):
                more = gl.load(bias + n * ROWS + column)
                mbarrier.wait(turn.index(group), (done & 1) ^ (1 if group == 0 else 0))
                await_block(full, at)
                result = nothing
                for k in gl.static_range(chunks):
                    if k == chunks - 1:  # what is left of this product hides the change of turns
                        mbarrier.arrive(turn.index((group + 1) % COUNT), count=1)
                    block = blocks.index(at % SLOTS * chunks + k).permute((1, 0))
                    result = warpgroup_mma(rows[k], block, result, use_acc=k > 0, is_async=True)
                result = warpgroup_mma_wait(0, deps=(result,))
                mbarrier.arrive(empty.index(at % SLOTS), count=1)
                result += more.to(gl.float32)[None, :]
                if half == 0:
                    result = gelu(result)
                elif n * ROWS < rotated:
                    result = rotate(result, c, s, half)
                place = staged.index(group * STAGES + done % STAGES)
                tma.store_wait(STAGES - 1)
                place.store(result.to(out.dtype))
                fence_async_shared()
                copy_to_global(out, [row, n * ROWS], place)
                at += 1
                done += 1
        tma.store_wait(0)
