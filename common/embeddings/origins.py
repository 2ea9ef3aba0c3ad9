"""Which of several sources each row was read from."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.embeddings.arrays import Array


@dataclass(frozen=True)
class Origins:
    """The sources of a job that was read from several, in their order."""

    names: tuple[str, ...]
    #: The row after the last one of each source ``[S]``.
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, sources: Iterable[tuple[str, int]]) -> "Origins | None":
        """Return the origins of rows, from each source's name and records; None without any."""
        pairs = list(sources)
        if not pairs:
            return None
        ends = np.cumsum([records for _, records in pairs], dtype=np.int64)
        return cls(tuple(name for name, _ in pairs), ends)

    @property
    def records(self) -> NDArray[np.int64]:
        """The number of records that were read from each source ``[S]``."""
        return np.diff(self.ends, prepend=0)

    def numbers(self, rows: Array) -> NDArray[np.int32]:
        """Return the number of each row's source, from 0 ``[n]``."""
        return np.searchsorted(self.ends, rows, side="right").astype(np.int32)

    def names_of(self, rows: Array) -> list[str]:
        """Return the name of each row's source."""
        return [self.names[number] for number in self.numbers(rows).tolist()]
