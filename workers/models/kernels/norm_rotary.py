"""LayerNorm and rotary embedding of queries and keys (ESM C), in place, in one pass over them."""

from torch import Tensor, nn

from workers.models.kernels import triton

if triton is not None:
    import triton.language as tl


def norm_and_rotate(
    qkv: Tensor, heads: int, q_norm: nn.LayerNorm, k_norm: nn.LayerNorm, cos: Tensor, sin: Tensor
) -> None:
    """Norm queries and keys over all heads, then rotate the two halves of every head, in FP32.

    Args:
        qkv: ``[T, 3 * H * Dh]`` FP16 or BF16, contiguous: queries, keys and values of all heads.
        heads: H.
        q_norm, k_norm: LayerNorms over ``H * Dh``, with a weight and no bias.
        cos, sin: ``[T, 1, Dh / 2]`` FP32, contiguous (NeoX style).
    """
    assert qkv.is_contiguous()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    total, half = cos.shape[0], cos.shape[-1]
    norm_and_rotate_row[(2 * total,)](
        *(qkv, q_norm.weight, k_norm.weight, cos, sin, q_norm.eps),
        heads=heads,
        half=half,
        lanes=triton.next_power_of_2(heads * half),
    )


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def norm_and_rotate_row(
        qkv: tl.tensor,
        q_weight: tl.tensor,
        k_weight: tl.tensor,
        cos: tl.tensor,
        sin: tl.tensor,
        eps: tl.tensor,
        heads: tl.constexpr,
        half: tl.constexpr,
        lanes: tl.constexpr,
    ) -> None:
        """Norm and rotate the query or the key of a token, as first and second halves of heads."""
        token = tl.program_id(0).to(tl.int64) // 2
        is_key = tl.program_id(0) % 2
        dim: tl.constexpr = 2 * heads * half
        lane = tl.arange(0, lanes)
        here = lane < heads * half
        first = lane // half * 2 * half + lane % half  # of both halves of the same head
        at = qkv + token * 3 * dim + is_key * dim + first
        a = tl.load(at, mask=here, other=0.0).to(tl.float32)
        b = tl.load(at + half, mask=here, other=0.0).to(tl.float32)
        mean = (tl.sum(a, 0) + tl.sum(b, 0)) / dim
        a, b = tl.where(here, a - mean, 0.0), tl.where(here, b - mean, 0.0)
        scale = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / dim + eps)
        weight = k_weight if is_key else q_weight
        a *= scale * tl.load(weight + first, mask=here, other=0.0).to(tl.float32)
        b *= scale * tl.load(weight + first + half, mask=here, other=0.0).to(tl.float32)
        turn = token * half + lane % half
        c = tl.load(cos + turn, mask=here, other=0.0)
        s = tl.load(sin + turn, mask=here, other=0.0)
        tl.store(at, (a * c - b * s).to(qkv.dtype.element_ty), mask=here)
        tl.store(at + half, (b * c + a * s).to(qkv.dtype.element_ty), mask=here)
