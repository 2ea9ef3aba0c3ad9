"""The base of all models: token embeddings, blocks, and views that share their weights."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from common.model_specs import ModelSpec
from workers.models.attention.choice import Case, Kernel, packed_choice
from workers.models.attention.layouts import Layout, packed_layout

M = TypeVar("M", bound="Encoder")


class Encoder(nn.Module):
    """Token embeddings, then blocks on a residual stream, for packs and for padded batches.

    All buffers are in ``ExactBuffers``. The linear layers ``qkv`` and ``fc1`` of a block read the
    stream, ``out`` and ``fc2`` write to it: ``mixed_precision`` wraps them by these names.
    """

    blocks: nn.ModuleList

    #: Number of tokens, special ones included.
    vocabulary: ClassVar[int]

    #: Dtype of queries, keys and values; None for the stream's.
    attention_dtype: torch.dtype | None = None

    #: The kernel of attention of fused blocks; None: that of the pack's layout.
    kernel: Kernel | None = None

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        # Models are built on the meta device. There, the initialisation of nn.Embedding and
        # torch.arange import torch._dynamo, which takes longer than loading a small model.
        empty = torch.empty(self.vocabulary, spec.dim)
        self.embed_tokens: nn.Module = nn.Embedding.from_pretrained(empty)

    @property
    def head_dim(self) -> int:
        """Width of a head of attention."""
        return self.spec.dim // self.spec.heads

    @property
    def attention_kernel(self) -> str:
        """The name of the kernel that computes the attention of packs."""
        if self.kernel is not None:
            return self.kernel
        weight = next(self.parameters())
        dtype = self.attention_dtype or weight.dtype
        return packed_choice(
            Case(weight.device, dtype, self.head_dim, self.spec.family.alibi)
        ).kernel

    @abstractmethod
    def forward(
        self, tokens: Tensor, real: Tensor, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """Embed a padded batch; the reference that ``forward_packed`` is validated against.

        Args:
            tokens: ``[B, T]`` token ids, padded on the right with any ids.
            real: ``[B, T]`` bool, False at padding.
            repr_layers: which representations to return, 0 to ``spec.layers``.

        Returns:
            ``{layer: [B, T, D]}``; vectors at padding are undefined.
        """

    @abstractmethod
    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """Embed a pack: segments one after another, without padding and independent of each other.

        Args:
            input_ids: ``[T]`` token ids of all segments.
            cu_seqlens: ``[N + 1]`` int32, where each segment starts; the last entry is T.
            max_seqlen: an upper bound of the segments' tokens.
            repr_layers: which representations to return, 0 to ``spec.layers``.

        Returns:
            ``{layer: [T, D]}``.
        """

    def layout_of(
        self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int, slopes: Tensor | None = None
    ) -> Layout:
        """Return the layout of a pack whose stream is ``x`` ``[T, D]``."""
        dtype = self.attention_dtype or x.dtype
        return packed_layout(
            *(cu_seqlens, max_seqlen, len(x), slopes), dtype=dtype, head_dim=self.head_dim
        )

    def run_blocks(self, x: Tensor, repr_layers: Sequence[int], *shared: Any) -> dict[int, Tensor]:
        """Return representations of the stream before the first block and after each.

        Args:
            x: ``[..., D]``, the stream.
            repr_layers: which representations to return, 0 to ``spec.layers``.
            shared: further arguments of every block.
        """
        wanted = set(repr_layers)
        assert wanted <= set(range(self.spec.layers + 1)), repr_layers
        found = {0: self.representation(x, 0)} if 0 in wanted else {}
        # Blocks above the highest layer wanted are not run.
        for k, block in enumerate(self.blocks[: max(wanted)], start=1):
            x = block(x, *shared)
            if k in wanted:
                found[k] = self.representation(x, k)
        return found

    def representation(self, x: Tensor, k: int) -> Tensor:
        """Return the model's output for the stream ``x`` ``[..., D]`` after k blocks."""
        return x

    def block_list(self) -> list[Any]:
        """Return the blocks, without the type that ``nn.ModuleList`` hides."""
        return list(self.blocks)


def view_of(model: M) -> M:
    """Return a second model on the same tensors."""
    with torch.device("meta"):
        view = type(model)(model.spec)
    share_weights(view, model)
    return view


def share_weights(view: Encoder, base: Encoder) -> None:
    """Give ``view``, built on the meta device, the tensors of ``base``, in evaluation mode."""
    view.load_state_dict(base.state_dict(), assign=True)
    view.eval().requires_grad_(False)
