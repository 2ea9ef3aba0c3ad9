"""The fast path of ESM C: a view whose blocks are a few kernels each (``workers.models.fused``)."""

import torch
from torch import Tensor, nn

from workers.models.attention.choice import Kernel
from workers.models.attention.fused_attention import fused_attention
from workers.models.attention.layouts import Layout
from workers.models.encoder import share_weights
from workers.models.esmc.model import ESMC, Block
from workers.models.kernels.gate import silu_gate
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.norm_rotary import norm_and_rotate


class FusedESMC(ESMC):
    """ESM C with fused blocks."""

    def __init__(self, base: ESMC, kernel: Kernel) -> None:
        with torch.device("meta"):
            super().__init__(base.spec)
        share_weights(self, base)
        self.kernel = kernel
        for k, block in enumerate(self.block_list()):
            self.blocks[k] = FusedBlock(block, kernel)

    def representation(self, x: Tensor, k: int) -> Tensor:
        # The next block changes the stream in place.
        return layer_norm(x, self.final_norm) if k == self.spec.layers else x.clone()


class FusedBlock(nn.Module):
    """ESM C's block, which changes the stream in place."""

    def __init__(self, block: Block, kernel: Kernel) -> None:
        super().__init__()
        self.block = block
        self.kernel = kernel

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        block = self.block
        qkv = block.qkv(layer_norm(x, block.attention_norm))
        norm_and_rotate(qkv, block.heads, block.q_norm, block.k_norm, cos, sin)
        attended = fused_attention(qkv, block.heads, layout, self.kernel)
        x.addmm_(attended, block.out.weight.t(), alpha=block.share)
        gated = silu_gate(block.fc1(layer_norm(x, block.mlp_norm)))
        return x.addmm_(gated, block.fc2.weight.t(), alpha=block.share)
