"""Token ids of several sequences, and the tokenizers that make them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """Token ids of several sequences, one after another."""

    ids: NDArray[np.int64]  # [T]
    cu_seqlens: NDArray[np.int32]  # [N + 1], where each sequence starts; the last entry is T

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence ``[N]``."""
        return np.diff(self.cu_seqlens)


class Tokenizer(Protocol):
    """A tokenizer of upper-case sequences, which adds the special tokens around each of them."""

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Tokens that came with the weights, with ids; empty if all weights have the same ones."""

    @property
    def deviations(self) -> str:
        """What else is unlike the family's published tokenizer; empty if nothing is."""

    def __call__(self, sequences: Sequence[str]) -> Tokens:
        """Return the tokens of ``sequences``."""
