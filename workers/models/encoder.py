"""What all models here have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.modeltable import ModelSpec


class Encoder(nn.Module):
    """Token embeddings, then blocks on a residual stream; padded for validation, packed for work.

    Blocks have the linear layers ``qkv`` and ``fc1``, which read the stream, and ``out`` and
    ``fc2``, which write to it: ``mixed_precision`` wraps them by these names.
    """

    embed_tokens: nn.Module
    blocks: nn.ModuleList

    #: Of queries, keys and values where it is not the stream's.
    attention_dtype: torch.dtype | None = None

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def forward(
        self, tokens: Tensor, real: Tensor, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """Embed a padded batch; the reference that ``forward_packed`` is validated against.

        Args:
            tokens: ``[B, T]`` token ids, right-padded with any.
            real: ``[B, T]`` bool, False at padding.
            repr_layers: which representations to return, 0 to ``spec.layers``.

        Returns:
            ``{layer: [B, T, D]}``; what stands at padding has no meaning.
        """

    @abstractmethod
    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """Embed a pack: segments one after another, no padding, none sees another.

        Args:
            input_ids: ``[T]`` token ids of all segments.
            cu_seqlens: ``[N + 1]`` int32, where each segment starts; the last entry is T.
            max_seqlen: at least the longest segment's tokens.
            repr_layers: which representations to return, 0 to ``spec.layers``.

        Returns:
            ``{layer: [T, D]}``.
        """

    def block_list(self) -> list[Any]:
        """The blocks, to be looked into."""
        return list(self.blocks)
