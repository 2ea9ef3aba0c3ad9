"""What Hopper kernels compute on blocks of 64 rows, in Gluon.

Import it where Gluon is there, as ``norm_linear`` does.
"""

import math

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

#: Number of rows of a block: those of the matrix instruction.
ROWS = gl.constexpr(64)


@gluon.constexpr_function  # type: ignore[untyped-decorator]
def results_layout(columns: int) -> gl.NVMMADistributedLayout:
    """Return which thread has which elements of 64 rows, as the matrix instruction leaves them."""
    return gl.NVMMADistributedLayout([3, 0], [4, 1], [16, columns, 16])


#: Layouts of 64 columns of results, and of left operands: the same warps have the same rows.
RESULTS = gl.constexpr(results_layout(64))
LEFT = gl.constexpr(gl.DotOperandLayout(0, RESULTS.value, 2))

#: Factors of x and of its cube in GELU's tanh form.
OF_X = gl.constexpr(math.sqrt(2 / math.pi))
OF_CUBE = gl.constexpr(math.sqrt(2 / math.pi) * 0.044715)


@gluon.jit  # type: ignore[untyped-decorator]
def norm_block(
    blocks: gl.shared_memory_descriptor, first: gl.tensor, affine: gl.tuple, dim: gl.constexpr
) -> None:
    """Norm 64 rows in place; their chunks are those from ``first`` on.

    Squares are those of distances to the mean of the row's first chunk, which is near enough to
    the mean of all that their difference loses nothing, and rows are read once less.
    """
    plus, gamma, beta, _, eps = affine
    columns: gl.constexpr = blocks.shape[2]
    layout: gl.constexpr = results_layout(columns)
    near = gl.sum(load_chunk(blocks, first, plus, 0), 1) / columns
    sums = gl.zeros([ROWS, columns], gl.float32, layout)
    squares = gl.zeros([ROWS, columns], gl.float32, layout)
    for k in range(dim // columns):  # not unrolled, which would take too many registers
        values = load_chunk(blocks, first, plus, k) - near[:, None]
        sums += values
        squares += values * values
    beyond = gl.sum(sums, 1) / dim
    mean = near + beyond
    scale = gl.rsqrt(gl.sum(squares, 1) / dim - beyond * beyond + eps)
    for k in range(dim // columns):
        values = (load_chunk(blocks, first, plus, k) - mean[:, None]) * scale[:, None]
        values = values * load_columns(gamma, k, columns) + load_columns(beta, k, columns)
        blocks.index(first + k).store(values.to(blocks.dtype))


@gluon.jit  # type: ignore[untyped-decorator]
def load_chunk(
    blocks: gl.shared_memory_descriptor, first: gl.tensor, plus: gl.tensor, k: gl.tensor
) -> gl.tensor:
    columns: gl.constexpr = blocks.shape[2]
    chunk = blocks.index(first + k).load(results_layout(columns))
    return chunk.to(gl.float32) + load_columns(plus, k, columns)


@gluon.jit  # type: ignore[untyped-decorator]
def load_columns(vector: gl.tensor, k: gl.tensor, columns: gl.constexpr) -> gl.tensor:
    """Return a chunk of a vector, as one row."""
    layout: gl.constexpr = gl.SliceLayout(0, results_layout(columns))
    column = k * columns + gl.arange(0, columns, layout)
    return gl.load(vector + column).to(gl.float32)[None, :]


@gluon.jit  # type: ignore[untyped-decorator]
def gelu(x: gl.tensor) -> gl.tensor:
    inner = x * (OF_X + OF_CUBE * x * x)
    tanh = gl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=gl.float32, is_pure=True, pack=1
    )
    return 0.5 * x + 0.5 * x * tanh


@gluon.jit  # type: ignore[untyped-decorator]
def split_halves(x: gl.tensor, half: gl.constexpr) -> gl.tensor:
    """Return the first and the second halves of heads: ``[64, heads, half]`` each."""
    return gl.split(x.reshape((ROWS, ROWS // (2 * half), 2, half)).permute((0, 1, 3, 2)))


@gluon.jit  # type: ignore[untyped-decorator]
def load_turns(
    cos: gl.tensor, sin: gl.tensor, row: gl.tensor, total: gl.tensor, half: gl.constexpr
) -> gl.tensor:
    """Return cosines and sines ``[64, 1, half]`` of the rows from ``row`` on."""
    like, _ = split_halves(gl.zeros([ROWS, ROWS], gl.float32, RESULTS), half)
    of_head: gl.constexpr = gl.SliceLayout(1, like.type.layout)
    token = row + gl.arange(0, ROWS, gl.SliceLayout(1, of_head))[:, None]
    lane = gl.arange(0, half, gl.SliceLayout(0, of_head))[None, :]
    here = (token < total) & (lane < half)
    c = gl.load(cos + token * half + lane, mask=here, other=0.0)
    s = gl.load(sin + token * half + lane, mask=here, other=0.0)
    return c[:, None, :], s[:, None, :]


@gluon.jit  # type: ignore[untyped-decorator]
def rotate(x: gl.tensor, c: gl.tensor, s: gl.tensor, half: gl.constexpr) -> gl.tensor:
    """Rotate both halves of the heads in 64 columns."""
    a, b = split_halves(x, half)
    both = gl.join(a * c - b * s, b * c + a * s).permute((0, 1, 3, 2))
    return gl.convert_layout(both.reshape((ROWS, ROWS)), RESULTS)
