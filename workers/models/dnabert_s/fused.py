"""The fast path of DNABERT-S: a view of a few kernels per block (``workers.models.fused``)."""

import torch
from torch import Tensor, nn

from workers.models.attention.choice import Kernel
from workers.models.attention.fused_attention import fused_attention
from workers.models.attention.layouts import Layout
from workers.models.dnabert_s.model import DNABERTS, Block
from workers.models.encoder import share_weights
from workers.models.kernels.gate import gelu_gate
from workers.models.kernels.norm import layer_norm


class FusedDNABERTS(DNABERTS):
    """DNABERT-S with fused blocks."""

    def __init__(self, base: DNABERTS, kernel: Kernel) -> None:
        with torch.device("meta"):
            super().__init__(base.spec)
        share_weights(self, base)
        self.kernel = kernel
        for k, block in enumerate(self.block_list()):
            self.blocks[k] = FusedBlock(block, kernel)

    def representation(self, x: Tensor, k: int) -> Tensor:
        return x.clone()  # the next block changes it in place


class FusedBlock(nn.Module):
    """DNABERT-S's block, which changes the stream in place."""

    def __init__(self, block: Block, kernel: Kernel) -> None:
        super().__init__()
        self.block = block
        self.kernel = kernel
        self.attention_bias = block.out.bias.float()  # [D]
        self.mlp_bias = block.fc2.bias.float()  # [D]

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        block = self.block
        x.addmm_(
            fused_attention(block.qkv(x), block.heads, layout, self.kernel), block.out.weight.t()
        )
        x = layer_norm(x, block.attention_norm, self.attention_bias)
        x.addmm_(gelu_gate(block.fc1(x)), block.fc2.weight.t())
        return layer_norm(x, block.mlp_norm, self.mlp_bias)
