"""The rungs above FP16 as views of one loaded model: the same weights in higher precision.

``apply_selective_fp32`` and ``apply_fp32`` return a second model on the tensors of the first. The
weights keep their dtype and are never changed, so all rungs may be in use at once.

Where FP16 overflows (beyond 65504), and which rung repairs it:

- in the residual stream, or in a term that attention or the MLP adds to it: ``selective_fp32``;
- inside a block, in a query, key, value or hidden unit of the MLP: ``fp32``;
- in attention scores: none is needed, since all kernels keep them in FP32.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.attention.attention import Attention, nan_beyond
from workers.models.attention.layouts import Layout, PaddedBatch, SeparateSegments
from workers.models.encoder import Encoder, view_of

M = TypeVar("M", bound=Encoder)


class MixedPrecisionLayerNorm(nn.Module):
    """LayerNorm in FP32 for input of any dtype: ``[..., D]`` to ``[..., D]`` FP32."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        weight, bias = norm.weight.float(), None if norm.bias is None else norm.bias.float()
        return F.layer_norm(x.float(), norm.normalized_shape, weight, bias, norm.eps)


class MixedPrecisionSoftmax(nn.Module):
    """Softmax over the last dimension in FP32, rounded to ``dtype``."""

    def forward(self, scores: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.softmax(scores.float(), dim=-1).to(dtype)


class MixedPrecisionAttention(nn.Module):
    """Attention with a softmax in FP32, written out where a kernel does not guarantee it.

    The softmax of FlashAttention, and of attention with ALiBi, is always FP32. Without biases, the
    kernel that ``scaled_dot_product_attention`` chooses, and its precision, are not specified.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        self.softmax = MixedPrecisionSoftmax()

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        if isinstance(layout, PaddedBatch) and layout.mask.dtype == torch.bool:
            return self._plain(q, k, v, layout.mask)
        if isinstance(layout, SeparateSegments) and layout.biases is None:
            segments = zip(*(t.split(layout.lengths) for t in (q, k, v)), strict=True)
            return torch.cat([self._plain(q1, k1, v1, None) for q1, k1, v1 in segments])
        return self.attention(q, k, v, layout)

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend ``[..., L, H, Dh]`` with FP32 scores and softmax; values keep their dtype."""
        q, k, v = (t.transpose(-3, -2) for t in (q, k, v))  # [..., H, L, Dh]
        q, k = nan_beyond(q, q.dtype), nan_beyond(k, k.dtype)
        scores = q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5  # [..., H, L, L]
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return (self.softmax(scores, v.dtype) @ v).transpose(-3, -2)


class MixedPrecisionLinear(nn.Module):
    """A matrix product in the weights' dtype, summed in FP32: ``[..., in]`` to ``[..., out]``.

    With ``to_stream`` the result is the FP32 sum, which cannot overflow; without, it is rounded to
    the weights' dtype.
    """

    def __init__(self, linear: nn.Linear, *, to_stream: bool) -> None:
        super().__init__()
        self.linear = linear
        self.to_stream = to_stream

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.linear.weight.dtype)
        return linear_in_fp32(x, self.linear) if self.to_stream else self.linear(x)


def linear_in_fp32(x: Tensor, linear: nn.Linear) -> Tensor:
    """Return ``linear(x)`` of half-precision ``x`` and weights as FP32 sums, not rounded."""
    weight, bias = linear.weight, linear.bias
    if x.is_cuda:
        product = torch.mm(x.flatten(0, -2), weight.t(), out_dtype=torch.float32)
        product = product.unflatten(0, x.shape[:-1])
    else:  # torch.mm has no out_dtype on a CPU; products of FP16 numbers are exact in FP32
        product = F.linear(x.float(), weight.float())
    return product if bias is None else product + bias.float()


class UpcastLinear(nn.Module):
    """A matrix product in FP32, with weights that are upcast only while it runs."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        bias = self.linear.bias
        weight = self.linear.weight.float()
        return F.linear(x.float(), weight, None if bias is None else bias.float())


class UpcastEmbedding(nn.Module):
    """An embedding with FP32 output: ``[...]`` to ``[..., D]`` FP32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens).float()


def apply_selective_fp32(model: M) -> M:
    """Return a view of ``model`` with LayerNorm, softmax and the residual stream in FP32.

    Matrix products and attention stay in the weights' dtype; the terms that they add to the
    stream are FP32 sums.
    """
    view = view_of(model)
    view.attention_dtype = next(model.parameters()).dtype
    for block in view.block_list():
        for name in ("qkv", "fc1"):
            setattr(block, name, MixedPrecisionLinear(getattr(block, name), to_stream=False))
        for name in ("out", "fc2"):
            setattr(block, name, MixedPrecisionLinear(getattr(block, name), to_stream=True))
    wrap(view, Attention, MixedPrecisionAttention)
    wrap(view, nn.LayerNorm, MixedPrecisionLayerNorm)
    wrap(view, nn.Embedding, UpcastEmbedding)
    return view


def apply_fp32(model: M) -> M:
    """Return a view of ``model`` that computes in FP32, with weights upcast layer by layer."""
    view = view_of(model)
    wrap(view, nn.Linear, UpcastLinear)
    wrap(view, nn.LayerNorm, MixedPrecisionLayerNorm)
    wrap(view, nn.Embedding, UpcastEmbedding)
    return view


def wrap(model: nn.Module, kind: type[Any], wrapper: Callable[[Any], nn.Module]) -> None:
    """Replace every layer of type ``kind`` by ``wrapper(layer)``."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, wrapper(child))
