"""DNABERT-S, for packs and for padded batches.

The published model (Zhou et al. 2024) is a MosaicBERT (Portes et al. 2023): a BERT with ALiBi in
place of position embeddings and a gated MLP.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from common.model_specs import ModelSpec
from workers.models.attention.alibi import Alibi
from workers.models.attention.attention import Attention
from workers.models.attention.layouts import Layout, padded_layout
from workers.models.encoder import Encoder

#: Number of tokens of the byte-pair encoding, special tokens included.
VOCABULARY = 4096


class DNABERTS(Encoder):
    """DNABERT-S. Representation 0 is the normed embedding, k the stream after k blocks."""

    vocabulary = VOCABULARY

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.embed_norm = nn.LayerNorm(spec.dim, eps=spec.eps)
        self.alibi = Alibi(spec.heads)
        self.blocks = nn.ModuleList(
            Block(spec.dim, spec.heads, spec.eps) for _ in range(spec.layers)
        )

    def forward(
        self, tokens: Tensor, real: Tensor, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        # tokens [B, T], real [B, T]
        assert tokens.shape == real.shape, (tokens.shape, real.shape)
        x = self.embed_norm(self.embed_tokens(tokens))
        return self.run_blocks(x, repr_layers, padded_layout(real, self.alibi.slopes))

    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        # input_ids [T], cu_seqlens [N + 1]
        assert (input_ids.ndim, cu_seqlens.ndim) == (1, 1), (input_ids.shape, cu_seqlens.shape)
        x = self.embed_norm(self.embed_tokens(input_ids))
        layout = self.layout_of(x, cu_seqlens, max_seqlen, self.alibi.slopes)
        return self.run_blocks(x, repr_layers, layout)


class Block(nn.Module):
    """A post-norm transformer layer over ``[..., D]`` tokens, packed or padded."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention = Attention()
        self.out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(dim, 8 * dim, bias=False)
        self.fc2 = nn.Linear(4 * dim, dim)
        self.mlp_norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = self.attention_norm(x + self._attend(x, layout))
        return self.mlp_norm(x + self._transform(x))

    def _attend(self, x: Tensor, layout: Layout) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # [..., H, Dh]
        return self.out(self.attention(q, k, v, layout).flatten(-2))

    def _transform(self, x: Tensor) -> Tensor:
        gate, values = self.fc1(x).chunk(2, dim=-1)  # [..., 4 D]
        return self.fc2(F.gelu(gate) * values)
