"""Token ids of several sequences, one after another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """Token ids of several sequences, one after another."""

    ids: NDArray[np.int64]  # [T]
    cu_seqlens: NDArray[np.int32]  # [N + 1], where each starts; the last entry is T

    @property
    def lengths(self) -> NDArray[np.int32]:
        return np.diff(self.cu_seqlens)
