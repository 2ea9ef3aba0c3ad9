"""Rotary position embedding of queries and keys, in place, in one memory-bound pass."""

from torch import Tensor

from workers.models.kernels import triton

if triton is not None:
    import triton.language as tl

#: Number of values that one program rotates.
PROGRAM_SIZE = 4096


def rotate_in_place(
    qkv: Tensor, heads: int, cos: Tensor, sin: Tensor, *, keys_only: bool = False
) -> None:
    """Rotate the two halves of every head of queries and keys (NeoX style), in FP32.

    Args:
        qkv: ``[T, 3 * H * Dh]`` FP16 or BF16, contiguous: queries, keys and values of all heads.
            A rotated value beyond the dtype's range becomes Inf.
        heads: H.
        cos, sin: ``[T, 1, Dh / 2]`` FP32, contiguous.
        keys_only: leave the queries as they are.
    """
    assert qkv.is_contiguous()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    total, half = cos.shape[0], cos.shape[-1]
    lanes = triton.next_power_of_2(half)
    rows = PROGRAM_SIZE // (2 * lanes)
    first, rotated = (heads, heads) if keys_only else (0, 2 * heads)
    rotate_rows[(triton.cdiv(rotated * total, rows),)](
        *(qkv, cos, sin, total),
        heads=heads,
        first=first,
        rotated=rotated,
        half=half,
        lanes=lanes,
        rows=rows,
    )


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def rotate_rows(
        qkv: tl.tensor,
        cos: tl.tensor,
        sin: tl.tensor,
        total: tl.tensor,
        heads: tl.constexpr,
        first: tl.constexpr,
        rotated: tl.constexpr,
        half: tl.constexpr,
        lanes: tl.constexpr,
        rows: tl.constexpr,
    ) -> None:
        """Rotate some rows; each is the query or key of one head, from ``first`` on, of a token."""
        row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
        token, head = row // rotated, first + row % rotated
        lane = tl.arange(0, lanes)[None, :]
        here = (token < total) & (lane < half)
        c = tl.load(cos + token * half + lane, mask=here, other=0.0)
        s = tl.load(sin + token * half + lane, mask=here, other=0.0)
        at = qkv + (token * 3 * heads + head) * 2 * half + lane
        a = tl.load(at, mask=here, other=0.0).to(tl.float32)
        b = tl.load(at + half, mask=here, other=0.0).to(tl.float32)
        tl.store(at, (a * c - b * s).to(qkv.dtype.element_ty), mask=here)
        tl.store(at + half, (b * c + a * s).to(qkv.dtype.element_ty), mask=here)
