"""The fast path of ESM-2: a view whose blocks are a few kernels each (``workers.models.fused``)."""

import torch
from torch import Tensor, nn

from workers.models.attention.layouts import Layout, TiledSegments
from workers.models.encoder import share_weights
from workers.models.esm2.model import ESM2, Block
from workers.models.kernels import hopper
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.rotary import rotate_in_place


class FusedESM2(ESM2):
    """ESM-2 with fused blocks, whose stream lacks the biases of the blocks before."""

    def __init__(self, base: ESM2) -> None:
        with torch.device("meta"):
            super().__init__(base.spec)
        share_weights(self, base)
        self.lacking = [torch.zeros_like(self.final_norm.weight, dtype=torch.float32)]  # [D] each
        for k, block in enumerate(self.block_list()):
            fused = FusedBlock(block, self.lacking[-1])
            self.blocks[k] = fused
            self.lacking.append(fused.lacking)

    def representation(self, x: Tensor, k: int) -> Tensor:
        if k == self.spec.layers:
            return layer_norm(x, self.final_norm, self.lacking[k])
        return (x + self.lacking[k]).to(x.dtype)


class FusedBlock(nn.Module):
    """ESM-2's block, for a stream that lacks the biases of the blocks before."""

    def __init__(self, block: Block, lacking: Tensor) -> None:
        super().__init__()
        self.block = block
        #: Sums of the biases that the stream lacks before attention, before the MLP and after the
        #: block: ``[D]`` FP32 each.
        self.before_attention = lacking
        self.before_mlp = lacking + block.out.bias.float()
        self.lacking = self.before_mlp + block.fc2.bias.float()
        weight = block.qkv.weight
        self.on_hopper = hopper.takes(weight.device, weight.dtype, block.head_dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        block = self.block
        qkv = block.qkv(layer_norm(x, block.attention_norm, self.before_attention))
        x.addmm_(self._attend(qkv, cos, sin, layout).flatten(-2), block.out.weight.t())
        normed = layer_norm(x, block.mlp_norm, self.before_mlp)
        hidden = torch._addmm_activation(
            block.fc1.bias, normed, block.fc1.weight.t(), use_gelu=True
        )
        return x.addmm_(hidden, block.fc2.weight.t())

    def _attend(self, qkv: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
        heads = self.block.heads
        if self.on_hopper:
            assert isinstance(layout, TiledSegments)
            rotate_in_place(qkv, heads, cos, sin, keys_only=True)
            return hopper.rotary_attention(qkv, heads, cos, sin, layout.tiles)
        rotate_in_place(qkv, heads, cos, sin)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)  # [T, H, Dh]
        return self.block.attention(q, k, v, layout)
