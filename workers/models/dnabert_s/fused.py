"""The fast path of DNABERT-S: a view of a few kernels per block (``workers.models.fused``)."""

import torch
from torch import Tensor, nn

from workers.models.attention.choice import Kernel
from workers.models.attention.layouts import Layout, TiledSegments
from workers.models.dnabert_s.model import DNABERTS, Block
from workers.models.encoder import share_weights
from workers.models.kernels import hopper
from workers.models.kernels.attention import varlen_attention
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
        x.addmm_(self._attend(block.qkv(x), layout).flatten(-2), block.out.weight.t())
        x = layer_norm(x, block.attention_norm, self.attention_bias)
        x.addmm_(gelu_gate(block.fc1(x)), block.fc2.weight.t())
        return layer_norm(x, block.mlp_norm, self.mlp_bias)

    def _attend(self, qkv: Tensor, layout: Layout) -> Tensor:
        assert isinstance(layout, TiledSegments)
        heads = self.block.heads
        if self.kernel is Kernel.HOPPER:
            return hopper.attention(qkv, heads, layout.tiles, slopes=layout.slopes)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)  # [T, H, Dh]
        return varlen_attention(q, k, v, *layout)
