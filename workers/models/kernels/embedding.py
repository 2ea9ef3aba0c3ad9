"""The embedding of tokens with a factor for each, in one pass over the stream."""

from torch import Tensor

from workers.models.kernels import triton

if triton is not None:
    import triton.language as tl

#: Approximate number of values that one program writes, in whole rows.
PROGRAM_SIZE = 4096


def scaled_embedding(tokens: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """Return ``table[tokens] * scale``, rounded once.

    Args:
        tokens: ``[T]`` ids.
        table: ``[V, D]`` FP16 or BF16, contiguous.
        scale: ``[T]`` FP32.

    Returns:
        ``[T, D]`` in the dtype of ``table``.
    """
    assert table.is_contiguous()
    total, dim = len(tokens), table.shape[1]
    out = table.new_empty(total, dim)
    lanes = triton.next_power_of_2(dim)
    rows = max(1, PROGRAM_SIZE // lanes)
    embed_rows[(triton.cdiv(total, rows),)](
        *(tokens, table, scale, out, total),
        dim=dim,
        lanes=lanes,
        rows=rows,
    )
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def embed_rows(
        tokens: tl.tensor,
        table: tl.tensor,
        scale: tl.tensor,
        out: tl.tensor,
        total: tl.tensor,
        dim: tl.constexpr,
        lanes: tl.constexpr,
        rows: tl.constexpr,
    ) -> None:
        row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
        lane = tl.arange(0, lanes)[None, :]
        is_row = row < total
        here = is_row[:, None] & (lane < dim)
        token = tl.load(tokens + row, mask=is_row, other=0)
        factor = tl.load(scale + row, mask=is_row, other=0.0)
        values = tl.load(table + token[:, None] * dim + lane, mask=here, other=0.0).to(tl.float32)
        values *= factor[:, None]
        tl.store(out + row[:, None] * dim + lane, values.to(out.dtype.element_ty), mask=here)
