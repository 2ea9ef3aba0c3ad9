"""The gated unit of DNABERT-S's MLP, in one pass over its hidden layer."""

from torch import Tensor

from workers.models.kernels import triton

if triton is not None:
    import triton.language as tl

#: Number of values that one program computes, all of one token.
PROGRAM_SIZE = 1024


def gelu_gate(hidden: Tensor) -> Tensor:
    """Return ``gelu(first half) * second half``, with the exact GELU, computed in FP32.

    Args:
        hidden: ``[T, 2 D]`` FP16 or BF16, contiguous.

    Returns:
        ``[T, D]`` in the dtype of ``hidden``.
    """
    assert hidden.is_contiguous()
    total, dim = hidden.shape[0], hidden.shape[1] // 2
    out = hidden.new_empty(total, dim)
    gate_part[(total, triton.cdiv(dim, PROGRAM_SIZE))](hidden, out, dim=dim, lanes=PROGRAM_SIZE)
    return out


if triton is not None:
    SQRT_HALF = tl.constexpr(0.5**0.5)

    @triton.jit  # type: ignore[untyped-decorator]
    def gate_part(
        hidden: tl.tensor, out: tl.tensor, dim: tl.constexpr, lanes: tl.constexpr
    ) -> None:
        token = tl.program_id(0).to(tl.int64)
        lane = tl.program_id(1) * lanes + tl.arange(0, lanes)
        here = lane < dim
        gate = tl.load(hidden + token * 2 * dim + lane, mask=here, other=0.0).to(tl.float32)
        value = tl.load(hidden + token * 2 * dim + dim + lane, mask=here, other=0.0).to(tl.float32)
        gated = 0.5 * gate * (1 + tl.erf(gate * SQRT_HALF)) * value
        tl.store(out + token * dim + lane, gated.to(out.dtype.element_ty), mask=here)
