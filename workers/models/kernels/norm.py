"""LayerNorm of the residual stream, in one pass that also adds biases that the stream lacks.

On an H200 it takes 0.09 ms for 65,536 tokens of width 1280, where PyTorch's takes 0.17 and reading
and writing the memory 0.08.
"""

import torch
from torch import Tensor, nn

from workers.models.kernels import triton

if triton is not None:
    import triton.language as tl

#: Approximate number of values that one program normalises, in whole rows.
PROGRAM_SIZE = 4096


def layer_norm(x: Tensor, norm: nn.LayerNorm, plus: Tensor | None = None) -> Tensor:
    """Return ``norm(x + plus)``, computed in FP32.

    Args:
        x: ``[T, D]`` FP16 or BF16, contiguous.
        norm: a LayerNorm over the last dimension, with a weight and perhaps a bias.
        plus: ``[D]`` FP32; None for nothing.

    Returns:
        ``[T, D]`` in the dtype of ``x``; a row with a value that is not finite is NaN.
    """
    assert x.is_contiguous()
    total, dim = x.shape
    out = torch.empty_like(x)
    lanes = triton.next_power_of_2(dim)
    rows = max(1, PROGRAM_SIZE // lanes)
    norm_rows[(triton.cdiv(total, rows),)](
        *(x, plus, norm.weight, norm.bias, out, total, norm.eps),
        dim=dim,
        lanes=lanes,
        rows=rows,
    )
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def norm_rows(
        x: tl.tensor,
        plus: tl.tensor,
        weight: tl.tensor,
        bias: tl.tensor,
        out: tl.tensor,
        total: tl.tensor,
        eps: tl.tensor,
        dim: tl.constexpr,
        lanes: tl.constexpr,
        rows: tl.constexpr,
    ) -> None:
        row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
        lane = tl.arange(0, lanes)[None, :]
        in_row = lane < dim
        here = in_row & (row < total)
        values = tl.load(x + row * dim + lane, mask=here, other=0.0).to(tl.float32)
        if plus is not None:
            values += tl.load(plus + lane, mask=in_row, other=0.0)
        centred = values - tl.sum(values, 1)[:, None] / dim
        centred = tl.where(here, centred, 0.0)
        variance = tl.sum(centred * centred, 1)[:, None] / dim
        scale = tl.load(weight + lane, mask=in_row, other=0.0).to(tl.float32)
        normed = centred * tl.rsqrt(variance + eps) * scale
        if bias is not None:
            normed += tl.load(bias + lane, mask=in_row, other=0.0).to(tl.float32)
        tl.store(out + row * dim + lane, normed.to(out.dtype.element_ty), mask=here)
