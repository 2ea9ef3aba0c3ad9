"""The gated units of MLPs (Shazeer 2020), in one pass over the hidden layer."""

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
    return gate(hidden, is_silu=False)


def silu_gate(hidden: Tensor) -> Tensor:
    """Return ``silu(first half) * second half``; see ``gelu_gate``."""
    return gate(hidden, is_silu=True)


def gate(hidden: Tensor, *, is_silu: bool) -> Tensor:
    assert hidden.is_contiguous()
    total, dim = hidden.shape[0], hidden.shape[1] // 2
    out = hidden.new_empty(total, dim)
    grid = total, triton.cdiv(dim, PROGRAM_SIZE)
    gate_part[grid](hidden, out, dim=dim, lanes=PROGRAM_SIZE, is_silu=is_silu)
    return out


if triton is not None:
    SQRT_HALF = tl.constexpr(0.5**0.5)

    @triton.jit  # type: ignore[untyped-decorator]
    def gate_part(
        hidden: tl.tensor,
        out: tl.tensor,
        dim: tl.constexpr,
        lanes: tl.constexpr,
        is_silu: tl.constexpr,
    ) -> None:
        token = tl.program_id(0).to(tl.int64)
        lane = tl.program_id(1) * lanes + tl.arange(0, lanes)
        here = lane < dim
        gate = tl.load(hidden + token * 2 * dim + lane, mask=here, other=0.0).to(tl.float32)
        value = tl.load(hidden + token * 2 * dim + dim + lane, mask=here, other=0.0).to(tl.float32)
        open_ = tl.sigmoid(gate) if is_silu else 0.5 * (1 + tl.erf(gate * SQRT_HALF))
        tl.store(out + token * dim + lane, (gate * open_ * value).to(out.dtype.element_ty), here)
