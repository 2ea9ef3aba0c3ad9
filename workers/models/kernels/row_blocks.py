"""What Hopper kernels compute on blocks of 64 rows by 64 columns, in Gluon.

Import it where Gluon is there, as ``norm_linear`` does.
"""

import math

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

#: Number of rows of a block: those of the matrix instruction.
ROWS = gl.constexpr(64)

#: Number of columns: 128 bytes, the widest rows that the copy engine arranges for matrix products.
COLUMNS = gl.constexpr(64)

#: Layouts, that is which thread has which elements: results, as the matrix instruction leaves them;
#: its left operand, of which the same warps have the same rows.
RESULTS = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16]))
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
    near = gl.sum(load_chunk(blocks, first, plus, 0), 1) / COLUMNS
    sums = gl.zeros([ROWS, COLUMNS], gl.float32, RESULTS)
    squares = gl.zeros([ROWS, COLUMNS], gl.float32, RESULTS)
    for k in range(dim // COLUMNS):  # not unrolled, which would take too many registers
        values = load_chunk(blocks, first, plus, k) - near[:, None]
        sums += values
        squares += values * values
    beyond = gl.sum(sums, 1) / dim
    mean = near + beyond
    scale = gl.rsqrt(gl.sum(squares, 1) / dim - beyond * beyond + eps)
    for k in range(dim // COLUMNS):
        values = (load_chunk(blocks, first, plus, k) - mean[:, None]) * scale[:, None]
        values = values * load_columns(gamma, k) + load_columns(beta, k)
        blocks.index(first + k).store(values.to(blocks.dtype))


@gluon.jit  # type: ignore[untyped-decorator]
def load_chunk(
    blocks: gl.shared_memory_descriptor, first: gl.tensor, plus: gl.tensor, k: gl.tensor
) -> gl.tensor:
    return blocks.index(first + k).load(RESULTS).to(gl.float32) + load_columns(plus, k)


@gluon.jit  # type: ignore[untyped-decorator]
def load_columns(vector: gl.tensor, k: gl.tensor) -> gl.tensor:
    column = k * COLUMNS + gl.arange(0, COLUMNS, gl.SliceLayout(0, RESULTS))
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
