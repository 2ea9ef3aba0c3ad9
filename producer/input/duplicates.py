"""Counting ids that occur more than once, in memory that does not grow with their number."""

import tempfile
import weakref
from array import array
from collections.abc import Iterable

import numpy as np

#: Number of hashes held in memory at once (32 MB).
IN_MEMORY = 1 << 22


class DuplicateCounter:
    """A counter that keeps a hash of 8 bytes per id: millions in memory, more in a file."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._recent = array("q")
        self._spilled = 0
        self._file = tempfile.TemporaryFile(prefix="virnucpro-ids-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def add(self, texts: Iterable[str]) -> None:
        self._recent.extend(map(hash, texts))
        if len(self._recent) >= self._in_memory:
            self._recent.tofile(self._file)
            self._spilled += len(self._recent)
            self._recent = array("q")

    def duplicates(self) -> int:
        """Return how many records have the id of an earlier record."""
        passes = 1 + self._spilled // self._in_memory
        return sum(self._duplicates_in(part, passes) for part in range(passes))

    def _duplicates_in(self, part: int, passes: int) -> int:
        """Count the duplicates among the hashes of one residue class, which fit in memory."""
        self._file.seek(0)
        found = []
        while (block := np.frombuffer(self._file.read(8 * self._in_memory), np.int64)).size:
            found.append(block[block % passes == part])
        recent = np.frombuffer(self._recent, np.int64) if self._recent else np.empty(0, np.int64)
        found.append(recent[recent % passes == part])
        hashes = np.sort(np.concatenate(found))
        return int((hashes[1:] == hashes[:-1]).sum())
