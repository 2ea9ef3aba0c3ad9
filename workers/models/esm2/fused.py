"""The fast path of ESM-2: a view whose blocks are a few kernels each (``workers.models.fused``)."""

import torch
from torch import Tensor, nn

from workers.models.attention.choice import Kernel, has_norm_linear
from workers.models.attention.fused_attention import fused_attention
from workers.models.attention.layouts import Layout
from workers.models.encoder import share_weights
from workers.models.esm2.model import ESM2, Block
from workers.models.kernels.attention import padded_dim
from workers.models.kernels.embedding import scaled_embedding
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.norm_linear import norm_linear_gelu, norm_linear_rotate
from workers.models.padded_heads import pad_halves, padded_out, padded_qkv


class FusedESM2(ESM2):
    """ESM-2 with fused blocks, whose stream lacks the biases of the blocks before."""

    def __init__(self, base: ESM2, kernel: Kernel) -> None:
        with torch.device("meta"):
            super().__init__(base.spec)
        share_weights(self, base)
        self.kernel = kernel
        self.lacking = [torch.zeros_like(self.final_norm.weight, dtype=torch.float32)]  # [D] each
        for k, block in enumerate(self.block_list()):
            fused = FusedBlock(block, self.lacking[-1], kernel)
            self.blocks[k] = fused
            self.lacking.append(fused.lacking)
        if hasattr(self, "rotary"):  # the angles of the zeros that pad a head do not matter
            self.rotary.inv_freq = pad_halves(base.rotary.inv_freq, base.head_dim)

    @property
    def head_dim(self) -> int:
        """Width of a head of attention, with the zeros that pad it."""
        return padded_dim(super().head_dim)

    def scaled_embedding(self, tokens: Tensor, scale: Tensor) -> Tensor:
        return scaled_embedding(tokens, self.embed_tokens.get_parameter("weight"), scale)

    def representation(self, x: Tensor, k: int) -> Tensor:
        if k == self.spec.layers:
            return layer_norm(x, self.final_norm, self.lacking[k])
        return (x + self.lacking[k]).to(x.dtype)


class FusedBlock(nn.Module):
    """ESM-2's block, for a stream that lacks the biases of the blocks before."""

    def __init__(self, block: Block, lacking: Tensor, kernel: Kernel) -> None:
        super().__init__()
        self.block = block
        self.kernel = kernel
        self.qkv = padded_qkv(block.qkv, block.head_dim)
        self.out = padded_out(block.out, block.head_dim)
        #: Sums of the biases that the stream lacks before attention, before the MLP and after the
        #: block: ``[D]`` FP32 each.
        self.before_attention = lacking
        self.before_mlp = lacking + block.out.bias.float()
        self.lacking = self.before_mlp + block.fc2.bias.float()
        weight, head_dim = block.qkv.weight, padded_dim(block.head_dim)
        self.has_norm_linear = has_norm_linear(
            weight.device, weight.dtype, weight.shape[1], block.heads, head_dim
        )

    def forward(self, x: Tensor, cos: Tensor | None, sin: Tensor | None, layout: Layout) -> Tensor:
        block = self.block
        turns = None if cos is None or sin is None else (cos, sin)
        if self.has_norm_linear and turns is not None:
            qkv = norm_linear_rotate(
                x, block.attention_norm, self.before_attention, self.qkv, block.heads, turns
            )
            turns = None
        else:
            qkv = self.qkv(layer_norm(x, block.attention_norm, self.before_attention))
        attended = fused_attention(
            qkv, block.heads, layout, self.kernel, turns, scaled_dim=block.head_dim
        )
        x.addmm_(attended, self.out.weight.t())
        if self.has_norm_linear:
            hidden = norm_linear_gelu(x, block.mlp_norm, self.before_mlp, block.fc1)
        else:
            normed = layer_norm(x, block.mlp_norm, self.before_mlp)
            hidden = torch._addmm_activation(
                block.fc1.bias, normed, block.fc1.weight.t(), use_gelu=True
            )
        return x.addmm_(hidden, block.fc2.weight.t())
