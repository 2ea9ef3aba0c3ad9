"""Attention as a module, which calls the kernel that the layout was made for."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.attention import flash
from workers.models.attention.alibi import QUERIES, biases_of
from workers.models.attention.layouts import FlashSegments, Layout, SeparateSegments, TiledSegments
from workers.models.kernels import attention as own_kernel


def nan_beyond(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return queries or keys ``x`` with NaN in place of values that are not finite in ``dtype``.

    If all scores of an infinite key are -Inf, its weights are 0 and the result would be finite as
    if the key were absent. NaN survives every softmax.
    """
    return torch.where(x.abs() <= torch.finfo(dtype).max, x, torch.nan)


class Attention(nn.Module):
    """Softmax attention, scaled by ``Dh ** -0.5``, within each segment or sequence.

    With ALiBi: ``softmax(q k' / sqrt(Dh) - slope * |i - j|) v``.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """Attend.

        Args:
            q, k, v: ``[T, H, Dh]`` for a pack's layout, ``[B, T, H, Dh]`` for a padded one. Without
                ALiBi, queries and keys that are not finite must be NaN already (``nan_beyond``).
            layout: which tokens attend to each other.

        Returns:
            The attended values, shaped as ``q``; NaN where a query or key is not finite.
        """
        if isinstance(layout, TiledSegments):
            return own_kernel.varlen_attention(q, k, v, *layout)
        if isinstance(layout, FlashSegments):
            return flash_attention(q, k, v, layout)
        if isinstance(layout, SeparateSegments):
            return segment_attention(q, k, v, *layout)
        return masked_attention(q, k, v, layout.mask)


def flash_attention(q: Tensor, k: Tensor, v: Tensor, layout: FlashSegments) -> Tensor:
    """Attend with a library's FlashAttention kernel."""
    bounds = (layout.cu_seqlens,) * 2 + (layout.max_seqlen,) * 2
    kernel = flash.kernel_named(layout.kernel)
    if layout.slopes is None:
        return kernel(q, k, v, *bounds)
    q, k = (nan_beyond(t, t.dtype) for t in (q, k))
    return kernel(q, k, v, *bounds, alibi_slopes=layout.slopes)


def segment_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: list[int], biases: Tensor | None = None
) -> Tensor:
    """Attend within segments of ``lengths``, one after another; ``biases`` is a ``bias_table``."""
    q, k, v = (t[None] for t in (q, k, v))  # [1, T, H, Dh]
    out = torch.empty_like(q)
    step = q.shape[1] if biases is None else QUERIES
    start = 0
    for length in lengths:
        keys, values = (t[:, start : start + length] for t in (k, v))
        for first in range(0, length, step):
            part = slice(start + first, start + min(first + step, length))
            queries = part.stop - part.start
            mask = None if biases is None else biases_of(biases, queries, first, length)
            out[:, part] = masked_attention(q[:, part], keys, values, mask)
        start += length
    return out[0]


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend ``[B, L, H, Dh]`` by ``scaled_dot_product_attention``.

    Args:
        q: ``[B, L, H, Dh]``.
        k, v: ``[B, S, H, Dh]``.
        mask: broadcastable to ``[B, H, L, S]``; bool, or the biases of ALiBi. With biases
            everything is computed in FP32: a bias near -10 is off by up to 0.004 in FP16, 0.03 in
            BF16.
    """
    dtype = q.dtype
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # [B, H, L, Dh]
    if mask is not None and mask.dtype != torch.bool:
        q, k, v = (t.float() for t in (q, k, v))
        q, k = nan_beyond(q, dtype), nan_beyond(k, dtype)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attended.transpose(1, 2).to(dtype)
