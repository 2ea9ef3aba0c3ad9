"""The matrix products of ESM-2 alone: the time that no implementation on this machine can beat.

For each pack and block these are the four layers (``qkv``, ``out``, ``fc1``, ``fc2``; without
biases) and, for each segment, attention's two products. Results are written to memory that is used
again, and nothing is computed between the products.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.machine import Run
from common.model_specs import ModelSpec
from workers.engine.packing import make_packs
from workers.models.encoder import Encoder
from workers.models.tokens import Tokens

#: Attention scores of as many heads as these are computed at once: they stay in a cache of 1 MB.
SCORES_AT_ONCE = 2**18


def matrix_products(model: Encoder, tokens: Tokens, pack_tokens: int) -> Run:
    """Return a run of the products that ``model`` needs for ``tokens``, in its dtype, on a CPU."""
    packs = list(make_packs(tokens, pack_tokens))
    most = max(len(pack.ids) for pack in packs)
    weights = [
        layer.weight.t()
        for block in model.block_list()
        for layer in (block.qkv, block.out, block.fc1, block.fc2)
    ]
    dim, dtype = model.spec.dim, weights[0].dtype
    x, hidden = torch.randn(most, 4 * dim).to(dtype), torch.empty(most, 4 * dim, dtype=dtype)
    attention = SegmentProducts(model.spec, tokens.lengths.tolist(), dtype)

    @torch.inference_mode()
    def run() -> None:
        for pack in packs:
            total, bounds = len(pack.ids), pack.cu_seqlens.tolist()
            for weight in weights:
                width, out = weight.shape
                given = x.view(-1)[: total * width].view(total, width)
                torch.mm(given, weight, out=hidden.view(-1)[: total * out].view(total, out))
            for _ in range(model.spec.layers):
                attention.run([end - start for start, end in pairwise(bounds)])

    return run


class SegmentProducts:
    """``q k'`` and ``p v`` of segments one after another, for all heads."""

    def __init__(self, spec: ModelSpec, lengths: Sequence[int], dtype: torch.dtype) -> None:
        longest = max(lengths)
        self.heads, head_dim = spec.heads, spec.dim // spec.heads
        self.q = torch.randn(self.heads, longest, head_dim).to(dtype)
        self.attended = torch.empty_like(self.q)
        self.scores = torch.empty(max(SCORES_AT_ONCE, longest**2), dtype=dtype)

    def run(self, lengths: Sequence[int]) -> None:
        for length in lengths:
            at_once = max(1, SCORES_AT_ONCE // length**2)
            for first in range(0, self.heads, at_once):
                self._multiply(slice(first, min(first + at_once, self.heads)), length)

    def _multiply(self, heads: slice, length: int) -> None:
        q = self.q[heads, :length]  # [h, L, Dh]; keys and values are the same numbers
        scores: Tensor = self.scores[: len(q) * length**2].view(-1, length, length)
        torch.bmm(q, q.transpose(1, 2), out=scores)
        torch.bmm(scores, q, out=self.attended[heads, :length])
