"""The Hopper kernel of ``norm_linear``, in Gluon.

Each group of four warps has 64 rows, which it norms and then holds in registers, and multiplies by
the weights, 64 outputs at a time; one more warp loads blocks of 64 rows, of the input and of the
weights, into a ring in shared memory. The groups take turns with the matrix units: while one
multiplies, the others rotate or activate, and store, what they multiplied before (the "ping-pong"
of FlashAttention-3, Shah et al. 2024). Of blocks, each chunk of columns is an array of its own.

Import it where Gluon is there, as ``norm_linear`` does.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from workers.models.kernels.row_blocks import (
    LEFT,
    RESULTS,
    ROWS,
    gelu,
    load_turns,
    norm_block,
    rotate,
)

# Newer versions of Triton have the first names, older ones the second.
copy_to_shared = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
copy_to_global = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
await_group = getattr(gl, "barrier", None) or gl.thread_barrier

#: Number of blocks of results of a group that are being stored.
STORED = gl.constexpr(2)


@gluon.jit(do_not_specialize=["total"])  # type: ignore[untyped-decorator]
def compute(
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
    groups: gl.constexpr,
    slots: gl.constexpr,
    registers: gl.constexpr,
    loader_registers: gl.constexpr,
) -> None:
    """Compute every n-th tile of 64 rows for each group, of n programs."""
    columns: gl.constexpr = x.block_type.shape[1]
    chunks: gl.constexpr = dim // columns
    blocks = gl.allocate_shared_memory(x.dtype, [slots * chunks, ROWS, columns], x.layout)
    staged = gl.allocate_shared_memory(x.dtype, [groups * STORED, ROWS, ROWS], out.layout)
    full, empty = make_barriers(slots, 1), make_barriers(slots, groups)
    turn = make_barriers(groups, 1)
    fence_async_shared()
    memory = (blocks, full, empty, turn, staged)
    affine = (plus, gamma, beta, bias, eps)
    if groups == 3:
        gl.warp_specialize(
            [
                (multiply, (0, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (multiply, (1, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (multiply, (2, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (load, (x, weight, memory, total, dim, outputs)),
            ],
            [4, 4, 1],
            [registers, registers, loader_registers],
        )
    else:
        gl.warp_specialize(
            [
                (multiply, (0, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (multiply, (1, memory, out, affine, cos, sin, total, dim, outputs, half, rotated)),
                (load, (x, weight, memory, total, dim, outputs)),
            ],
            [4, 1],
            [registers, loader_registers],
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
    _, _, _, turn, _ = memory
    groups: gl.constexpr = turn.shape[0]
    at = 0
    tiles = gl.cdiv(total, groups * ROWS)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        for group in gl.static_range(groups):
            load_block(x, tile * groups + group, memory, at, dim)
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
    blocks, full, empty, _, _ = memory
    columns: gl.constexpr = blocks.shape[2]
    chunks: gl.constexpr = dim // columns
    slots: gl.constexpr = full.shape[0]
    slot = at % slots
    mbarrier.wait(empty.index(slot), ((at // slots) & 1) ^ 1)
    mbarrier.expect(full.index(slot), ROWS * dim * 2)  # bytes
    for k in gl.static_range(chunks):
        place = blocks.index(slot * chunks + k)
        copy_to_shared(source, [block * ROWS, k * columns], full.index(slot), place)


@gluon.jit  # type: ignore[untyped-decorator]
def await_block(full: gl.shared_memory_descriptor, at: gl.tensor) -> None:
    slots: gl.constexpr = full.shape[0]
    mbarrier.wait(full.index(at % slots), (at // slots) & 1)


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
    nothing = gl.zeros([ROWS, ROWS], gl.float32, RESULTS)
    column = gl.arange(0, ROWS, gl.SliceLayout(0, RESULTS))
    blocks, full, empty, turn, staged = memory
    _, _, _, bias, _ = affine
    chunks: gl.constexpr = dim // blocks.shape[2]
    slots: gl.constexpr = full.shape[0]
    groups: gl.constexpr = turn.shape[0]
    tiles = gl.cdiv(total, groups * ROWS)
    at, done = 0, 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        for owner in gl.static_range(groups):
            await_block(full, at)
            if owner == group:
                first = at % slots * chunks
                norm_block(blocks, first, affine, dim)
                rows = ()
                for k in gl.static_range(chunks):
                    rows += (blocks.index(first + k).load(LEFT),)  # type: ignore[assignment]
                fence_async_shared()  # orders this before the next copy to the slot
                await_group()
            mbarrier.arrive(empty.index(at % slots), count=1)
            at += 1
        row = (tile * groups + group) * ROWS
        if half > 0:
            c, s = load_turns(cos, sin, row, total, half)
        for n in range(outputs // ROWS):
            more = gl.load(bias + n * ROWS + column)
            mbarrier.wait(turn.index(group), (done & 1) ^ (1 if group == 0 else 0))
            await_block(full, at)
            result = nothing
            for k in gl.static_range(chunks):
                if k == chunks - 1:  # what is left of this product hides the change of turns
                    mbarrier.arrive(turn.index((group + 1) % groups), count=1)
                block = blocks.index(at % slots * chunks + k).permute((1, 0))
                result = warpgroup_mma(rows[k], block, result, use_acc=k > 0, is_async=True)
            result = warpgroup_mma_wait(0, deps=(result,))
            mbarrier.arrive(empty.index(at % slots), count=1)
            result += more.to(gl.float32)[None, :]
            if half == 0:
                result = gelu(result)
            elif n * ROWS < rotated:
                result = rotate(result, c, s, half)
            place = staged.index(group * STORED + done % STORED)
            tma.store_wait(STORED - 1)
            place.store(result.to(out.dtype))
            fence_async_shared()
            copy_to_global(out, [row, n * ROWS], place)
            at += 1
            done += 1
    tma.store_wait(0)
