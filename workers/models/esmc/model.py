"""ESM C, for packs and for padded batches.

The published model (ESM Team 2024, ``esm.models.esmc.ESMC``) with its projections fused and
attention over variable-length segments. Packs and single sequences give equal embeddings.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.model_specs import ModelSpec, swiglu_width
from workers.models.attention.attention import Attention
from workers.models.attention.layouts import Layout, padded_layout
from workers.models.encoder import Encoder
from workers.models.rotary import RotaryEmbedding, positions_in, rotate

#: Number of tokens that the embedding has room for; 33 are used, ESM-2's for all letters.
VOCABULARY = 64

#: Number of layers of a model whose terms are added to the stream as they are.
UNSCALED_LAYERS = 36


class ESMC(Encoder):
    """ESM C. Representation k is the residual stream after k layers; only the last is normed."""

    vocabulary = VOCABULARY

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.rotary = RotaryEmbedding(spec.dim // spec.heads)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.final_norm = nn.LayerNorm(spec.dim, eps=spec.eps, bias=False)

    def forward(
        self, tokens: Tensor, real: Tensor, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        # tokens [B, T], real [B, T]
        assert tokens.shape == real.shape, (tokens.shape, real.shape)
        turns = self.rotary(torch.arange(tokens.shape[1], device=tokens.device))
        x = self.embed_tokens(tokens) * real[..., None]
        return self.run_blocks(x, repr_layers, *turns, padded_layout(real))

    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        # input_ids [T], cu_seqlens [N + 1]
        assert (input_ids.ndim, cu_seqlens.ndim) == (1, 1), (input_ids.shape, cu_seqlens.shape)
        turns = self.rotary(positions_in(cu_seqlens, len(input_ids)))
        x = self.embed_tokens(input_ids)
        layout = self.layout_of(x, cu_seqlens, max_seqlen)
        return self.run_blocks(x, repr_layers, *turns, layout)

    def representation(self, x: Tensor, k: int) -> Tensor:
        return self.final_norm(x) if k == self.spec.layers else x


class Block(nn.Module):
    """A pre-norm transformer layer over ``[..., D]`` tokens, packed or padded."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        dim, eps, width = spec.dim, spec.eps, swiglu_width(spec.dim)
        self.heads = spec.heads
        #: Factor of what is added to the stream, which keeps it small in deep models.
        self.share = (UNSCALED_LAYERS / spec.layers) ** 0.5
        self.attention_norm = nn.LayerNorm(dim, eps=eps)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = nn.LayerNorm(dim, eps=eps, bias=False)
        self.k_norm = nn.LayerNorm(dim, eps=eps, bias=False)
        self.attention = Attention()
        self.out = nn.Linear(dim, dim, bias=False)
        self.mlp_norm = nn.LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(dim, 2 * width, bias=False)
        self.fc2 = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        x = x + self.share * self._attend(self.attention_norm(x), cos, sin, layout)
        return x + self.share * self._transform(self.mlp_norm(x))

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # [..., D]
        # Over all heads together, and rounded as the values are.
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))  # [..., H, Dh]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return self.out(self.attention(q, k, v, layout).flatten(-2))

    def _transform(self, x: Tensor) -> Tensor:
        gate, values = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * values)
