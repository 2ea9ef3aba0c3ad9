"""ESM-1b and ESM-1v, for packs and for padded batches.

The published models (Rives et al. 2021, Meier et al. 2021; fair-esm 2.0.0
``esm.model.esm1.ProteinBertModel``) are ESM-2 with learned positions in place of rotary embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.alphabet import SPECIAL_TOKENS
from common.errors import UserError
from common.model_specs import ESM1 as FAMILY
from common.model_specs import ModelSpec
from workers.models.attention.attention import nan_beyond
from workers.models.attention.layouts import Layout
from workers.models.esm2.model import ESM2
from workers.models.esm2.model import Block as RotaryBlock

#: The row of the table of positions that belongs to a segment's first token: rows up to that of the
#: padding token are unused.
FIRST_POSITION = 2

#: Number of rows of the table of positions: for 1024 tokens.
POSITIONS = 1026


class ESM1(ESM2):
    """ESM-1b or ESM-1v. Representation 0 is the stream with positions, normed in ESM-1b."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        del self.rotary
        table = torch.empty(POSITIONS, spec.dim)
        self.embed_positions: nn.Module = nn.Embedding.from_pretrained(table)
        norm = nn.LayerNorm(spec.dim, eps=spec.eps) if spec.embed_norm else nn.Identity()
        self.embed_norm: nn.Module = norm

    def make_block(self, spec: ModelSpec) -> nn.Module:
        """Return a block without rotary embedding."""
        return Block(spec.dim, spec.heads, spec.eps)

    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        assert FAMILY.longest is not None
        if max_seqlen > FAMILY.longest + SPECIAL_TOKENS:
            raise UserError(
                f"A sequence of {max_seqlen - SPECIAL_TOKENS} residues: {self.spec.name} has "
                f"positions for {FAMILY.longest}. Submit with --max-residues {FAMILY.longest}."
            )
        return super().forward_packed(input_ids, cu_seqlens, max_seqlen, repr_layers)

    def _run(
        self, x: Tensor, positions: Tensor, layout: Layout, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        x = self.embed_norm(x + self.embed_positions(positions + FIRST_POSITION))
        return self.run_blocks(x, repr_layers, None, None, layout)


class Block(RotaryBlock):
    """ESM-2's block, without rotary embedding."""

    def placed(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """Return queries or keys, which know their positions from the stream."""
        return nan_beyond(x, x.dtype)
