"""The fast path: a view of a half-precision model whose blocks are a few kernels each.

The same weights and the same arithmetic as the plain blocks of ``esm2`` and ``dnabert_s``, in
another order:

- the stream is changed in place: ``out`` and ``fc2`` add to it as they multiply;
- their biases are left out of the stream, which would take a pass of its own; the LayerNorm that
  reads the stream next adds them on the way;
- GELU is part of ``fc1``'s matrix product, in its tanh form (Hendrycks and Gimpel 2016), which
  differs from the exact one by up to 5e-4; rounded once, it is no farther from FP32 than the exact
  one of a rounded number (``benchmarks.kernels``).
"""

from typing import Self

import torch
from torch import Tensor, nn

from workers.models.attention.alibi import Layout, alibi_attention
from workers.models.attention.plain import Segments
from workers.models.dnabert_s import model as dnabert_s
from workers.models.encoder import Encoder, view_of
from workers.models.esm2 import model as esm2
from workers.models.kernels import attention, hopper
from workers.models.kernels.gate import gelu_gate
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.rotary import rotate_in_place


def can_fuse(model: Encoder) -> bool:
    """Whether the fast path exists for this model where it is."""
    weight = next(model.parameters())
    return attention.takes(weight.device, weight.dtype, model.spec.dim // model.spec.heads)


def apply_fused(model: Encoder) -> Encoder:
    """A view of ``model`` for packs, not for padded batches."""
    if isinstance(model, esm2.ESM2):
        return view_of(model, FusedESM2).fuse()
    return view_of(model, FusedDNABERTS).fuse()


class FusedESM2(esm2.ESM2):
    """ESM-2 whose stream lacks the biases of all blocks that it went through."""

    def fuse(self) -> Self:
        """Replace the blocks of a model that has its weights."""
        self.lacking = [torch.zeros_like(self.final_norm.weight, dtype=torch.float32)]  # [D] each
        for k, block in enumerate(self.block_list()):
            fused = FusedPreNorm(block, self.lacking[-1])
            self.blocks[k] = fused
            self.lacking.append(fused.lacking)
        return self

    def representation(self, x: Tensor, k: int) -> Tensor:
        if k == self.spec.layers:
            return layer_norm(x, self.final_norm, self.lacking[k])
        return (x + self.lacking[k]).to(x.dtype)


class FusedDNABERTS(dnabert_s.DNABERTS):
    """DNABERT-S, whose norms come after the sums and make up for the biases at once."""

    def fuse(self) -> Self:
        """Replace the blocks of a model that has its weights."""
        for k, block in enumerate(self.block_list()):
            self.blocks[k] = FusedPostNorm(block)
        return self

    def representation(self, x: Tensor, k: int) -> Tensor:
        return x.clone()  # the next block changes it in place


class FusedPreNorm(nn.Module):
    """ESM-2's block, for a stream that lacks the biases of the blocks before."""

    def __init__(self, block: esm2.Block, lacking: Tensor) -> None:
        super().__init__()
        self.block = block
        self.before_attention = lacking  # [D] FP32, as the others
        self.before_mlp = lacking + block.out.bias.float()
        self.lacking = self.before_mlp + block.fc2.bias.float()
        weight = block.qkv.weight
        self.on_hopper = hopper.takes(weight.device, weight.dtype, block.head_dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Segments) -> Tensor:
        block = self.block
        qkv = block.qkv(layer_norm(x, block.attention_norm, self.before_attention))
        x.addmm_(self._attend(qkv, cos, sin, layout).flatten(-2), block.out.weight.t())
        normed = layer_norm(x, block.mlp_norm, self.before_mlp)
        hidden = torch._addmm_activation(
            block.fc1.bias, normed, block.fc1.weight.t(), use_gelu=True
        )
        return x.addmm_(hidden, block.fc2.weight.t())

    def _attend(self, qkv: Tensor, cos: Tensor, sin: Tensor, layout: Segments) -> Tensor:
        heads = self.block.heads
        if self.on_hopper:
            assert layout.tiles is not None
            rotate_in_place(qkv, heads, cos, sin, keys_only=True)
            return hopper.rotary_attention(qkv, heads, cos, sin, layout.tiles)
        rotate_in_place(qkv, heads, cos, sin)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)  # [T, H, Dh]
        return self.block.attention(q, k, v, layout)


class FusedPostNorm(nn.Module):
    """DNABERT-S's block."""

    def __init__(self, block: dnabert_s.Block) -> None:
        super().__init__()
        self.block = block
        self.attention_bias = block.out.bias.float()  # [D]
        self.mlp_bias = block.fc2.bias.float()

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        block = self.block
        q, k, v = block.qkv(x).unflatten(-1, (3, block.heads, -1)).unbind(-3)  # [T, H, Dh]
        x.addmm_(alibi_attention(q, k, v, layout).flatten(-2), block.out.weight.t())
        x = layer_norm(x, block.attention_norm, self.attention_bias)
        x.addmm_(gelu_gate(block.fc1(x)), block.fc2.weight.t())
        return layer_norm(x, block.mlp_norm, self.mlp_bias)
