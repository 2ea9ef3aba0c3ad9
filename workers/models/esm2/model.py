"""ESM-2, for packs and for padded batches.

The published model (Lin et al. 2023, fair-esm 2.0.0 ``esm.model.esm2.ESM2``) with its three
projections fused into one and attention over variable-length segments.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.alphabet import ESM2_TOKENS
from common.model_specs import ModelSpec
from workers.models.attention.attention import Attention
from workers.models.attention.layouts import Layout, padded_layout
from workers.models.encoder import Encoder
from workers.models.rotary import RotaryEmbedding, positions_in, rotate

MASK = ESM2_TOKENS.index("<mask>")

#: Share of ``<mask>`` among the tokens in training: 80 % of the 15 % that were selected. Embeddings
#: are scaled by the rest, also at inference (``token_dropout`` of fair-esm).
TRAINING_MASK_RATIO = 0.15 * 0.8


class ESM2(Encoder):
    """ESM-2. Representation k is the residual stream after k layers; only the last is normed."""

    vocabulary = len(ESM2_TOKENS)

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.rotary = RotaryEmbedding(spec.dim // spec.heads)
        self.blocks = nn.ModuleList(self.make_block(spec) for _ in range(spec.layers))
        self.final_norm = nn.LayerNorm(spec.dim, eps=spec.eps)

    def make_block(self, spec: ModelSpec) -> nn.Module:
        """Return a block of the model."""
        return Block(spec.dim, spec.heads, spec.eps)

    def forward(
        self, tokens: Tensor, real: Tensor, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        # tokens [B, T], real [B, T]
        assert tokens.shape == real.shape, (tokens.shape, real.shape)
        masked = ((tokens == MASK) & real).sum(1, keepdim=True)  # [B, 1]
        x = self._embed(tokens, masked / real.sum(1, keepdim=True)) * real[..., None]
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self._run(x, positions, padded_layout(real), repr_layers)

    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        # input_ids [T], cu_seqlens [N + 1]
        assert (input_ids.ndim, cu_seqlens.ndim) == (1, 1), (input_ids.shape, cu_seqlens.shape)
        total = input_ids.shape[0]
        lengths = cu_seqlens.diff()
        segment = torch.repeat_interleave(lengths, output_size=total)  # [T]
        masked = torch.zeros_like(lengths, dtype=torch.float32)
        masked.index_add_(0, segment, (input_ids == MASK).float())
        x = self._embed(input_ids, (masked / lengths)[segment])
        layout = self.layout_of(x, cu_seqlens, max_seqlen)
        return self._run(x, positions_in(cu_seqlens, total), layout, repr_layers)

    def _embed(self, tokens: Tensor, masked_ratio: Tensor) -> Tensor:
        scale = (1 - TRAINING_MASK_RATIO) / (1 - masked_ratio)
        return self.scaled_embedding(tokens, torch.where(tokens == MASK, 0.0, scale))

    def scaled_embedding(self, tokens: Tensor, scale: Tensor) -> Tensor:
        """Return the embedding of each token, multiplied by an FP32 number of its own."""
        x: Tensor = self.embed_tokens(tokens)
        return x.mul_(scale[..., None])  # in place: rounded once, without an FP32 copy

    def _run(
        self, x: Tensor, positions: Tensor, layout: Layout, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        return self.run_blocks(x, repr_layers, *self.rotary(positions), layout)

    def representation(self, x: Tensor, k: int) -> Tensor:
        return self.final_norm(x) if k == self.spec.layers else x


class Block(nn.Module):
    """A pre-norm transformer layer over ``[..., D]`` tokens, packed or padded."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.attention_norm = nn.LayerNorm(dim, eps=eps)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention = Attention()
        self.out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        x = x + self._attend(self.attention_norm(x), cos, sin, layout)
        return x + self.fc2(F.gelu(self.fc1(self.mlp_norm(x))))

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # [..., H, Dh]
        q, k = self.placed(q, cos, sin), self.placed(k, cos, sin)
        return self.out(self.attention(q, k, v, layout).flatten(-2))

    def placed(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return queries or keys ``[..., H, Dh]`` that know their positions."""
        return rotate(x, cos, sin)
