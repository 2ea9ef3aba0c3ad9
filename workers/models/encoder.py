"""What all models here have in common."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from common.model_specs import ModelSpec

M = TypeVar("M", bound="Encoder")


class ExactBuffers(nn.Module):
    """A layer whose buffers are FP32 whatever the model's dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # .half() and .to(dtype) go through here: follow them to the device, not to the dtype.
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            moved = self.get_buffer(name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self


class Encoder(nn.Module):
    """Token embeddings, then blocks on a residual stream; padded for validation, packed for work.

    All its buffers are in ``ExactBuffers``.
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

    def run_blocks(self, x: Tensor, repr_layers: Sequence[int], *given: Any) -> dict[int, Tensor]:
        """Representations of the stream ``x`` before the first block and after each.

        Args:
            x: ``[..., D]``.
            repr_layers: which representations to return, 0 to ``spec.layers``.
            given: what every block takes beside the stream.
        """
        wanted = set(repr_layers)
        assert wanted <= set(range(self.spec.layers + 1)), repr_layers
        found = {0: self.representation(x, 0)} if 0 in wanted else {}
        # Layers above the highest one wanted would be thrown away.
        for k, block in enumerate(self.blocks[: max(wanted)], start=1):
            x = block(x, *given)
            if k in wanted:
                found[k] = self.representation(x, k)
        return found

    def representation(self, x: Tensor, k: int) -> Tensor:
        """What the model gives for the stream ``x`` ``[..., D]`` after k blocks."""
        return x

    def block_list(self) -> list[Any]:
        """The blocks, to be looked into."""
        return list(self.blocks)


def view_of(model: Encoder, kind: type[M]) -> M:
    """A second model, of a class of the same layers, on the same tensors."""
    with torch.device("meta"):
        view = kind(model.spec)
    view.load_state_dict(model.state_dict(), assign=True)
    return view.eval().requires_grad_(False)
