"""The fast path of ESM-2 on a CPU: the arithmetic of the plain blocks in fewer passes over memory.

Rotary embedding turns pairs of a head's components, i and i + Dh / 2. Here the rows of the
weights of queries and keys are in an order that makes a pair neighbours, and so one complex
number: a rotation is one multiplication in place. Scores do not depend on the order of
components, which is the same in queries and keys. Values, and all other weights, are as they were.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.attention.attention import nan_beyond
from workers.models.attention.layouts import Layout
from workers.models.encoder import share_weights
from workers.models.esm2.model import ESM2, Block


class CpuESM2(ESM2):
    """ESM-2 with blocks for a CPU. The weights of queries and keys, a sixth of all, are copies."""

    def __init__(self, base: ESM2) -> None:
        with torch.device("meta"):
            super().__init__(base.spec)
        share_weights(self, base)
        for k, block in enumerate(self.block_list()):
            self.blocks[k] = CpuBlock(block)

    def _run(
        self, x: Tensor, positions: Tensor, layout: Layout, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        turns = torch.complex(*self.rotary(positions))  # [T, 1, Dh / 2]
        return self.run_blocks(x, repr_layers, turns, layout)


class CpuBlock(nn.Module):
    """ESM-2's block, with neighbours as the pairs of rotary embedding."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        weight, bias = block.qkv.weight, block.qkv.bias
        turned = 2 * len(weight) // 3
        self.qk = pair_halves(weight[:turned], 2 * block.heads)
        self.qk_bias = pair_halves(bias[:turned], 2 * block.heads)
        self.v, self.v_bias = weight[turned:], bias[turned:]

    def forward(self, x: Tensor, turns: Tensor, layout: Layout) -> Tensor:
        block = self.block
        x = x + self._attend(block.attention_norm(x), turns, layout)
        hidden = block.fc1(block.mlp_norm(x))
        return x + block.fc2(torch.ops.aten.gelu_(hidden))

    def _attend(self, x: Tensor, turns: Tensor, layout: Layout) -> Tensor:
        block = self.block
        qk = F.linear(x, self.qk, self.qk_bias).unflatten(-1, (2 * block.heads, -1))
        rotate_pairs(qk, turns)
        q, k = qk.chunk(2, dim=-2)  # [..., H, Dh]
        v = F.linear(x, self.v, self.v_bias).unflatten(-1, (block.heads, -1))
        return block.out(block.attention(q, k, v, layout).flatten(-2))


def pair_halves(rows: Tensor, heads: int) -> Tensor:
    """Return a copy of ``rows`` ``[H Dh, ...]`` in which the pairs of a head are neighbours."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def rotate_pairs(x: Tensor, turns: Tensor) -> None:
    """Turn neighbours of every head ``[..., T, H, Dh]`` in place, in FP32.

    Values that are not finite, or are beyond the range of ``x.dtype``, become NaN.
    """
    exact = x.float()
    torch.view_as_complex(exact.unflatten(-1, (-1, 2))).mul_(turns)
    if x.dtype != exact.dtype:
        x.copy_(exact)
    # Nearly always all are finite, which one pass shows.
    if not x.sum(dtype=torch.float32).isfinite():
        x.copy_(nan_beyond(x, x.dtype))
