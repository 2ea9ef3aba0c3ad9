"""Counting ids that occur more than once, in memory that does not grow with their number."""

import secrets
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from typing import IO

import numpy as np
import xxhash
from numpy.typing import NDArray

#: Number of hashes held in memory at once (32 MB).
IN_MEMORY = 1 << 22


class DuplicateCounter:
    """A counter that keeps a hash of 8 bytes per id: millions in memory, more in a file.

    Args:
        in_memory: number of hashes held in memory.
        seed: of the hashes. Counters of several processes have the same one if what they hash is
            counted together; None: a random one.
    """

    def __init__(self, in_memory: int = IN_MEMORY, seed: int | None = None) -> None:
        self._in_memory = in_memory
        self.seed = secrets.randbits(64) if seed is None else seed
        self._recent = array("q")
        self._spilled = 0

    @cached_property
    def _file(self) -> IO[bytes]:
        file = tempfile.TemporaryFile(prefix="virnucpro-ids-")  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    @property
    def recent(self) -> bytes:
        """The hashes that are in memory."""
        return self._recent.tobytes()

    def add(self, texts: Iterable[str]) -> None:
        self.add_encoded(map(str.encode, texts))

    def add_encoded(self, texts: Iterable[bytes]) -> None:
        self.add_hashes(b"".join(map(xxhash.xxh3_64_digest, texts, repeat(self.seed))))

    def add_hashes(self, hashes: bytes) -> None:
        """Add the hashes that a counter with the same seed had in memory."""
        self._recent.frombytes(hashes)
        if len(self._recent) >= self._in_memory:
            self._recent.tofile(self._file)
            self._spilled += len(self._recent)
            self._recent = array("q")

    def duplicates(self) -> int:
        """Return how many records have the id of an earlier record."""
        # A power of two: to look at some bits takes a fraction of the time of a division.
        passes = 1 << (self._spilled // self._in_memory).bit_length()
        return sum(self._duplicates_in(part, passes) for part in range(passes))

    def _duplicates_in(self, part: int, passes: int) -> int:
        """Count the duplicates among the hashes with the same last bits, which fit in memory."""
        found = self._all()
        if passes > 1:
            found = (hashes[hashes & (passes - 1) == part] for hashes in found)
        hashes = np.concatenate([np.empty(0, np.int64), *found])
        hashes.sort()
        return int(np.count_nonzero(hashes[1:] == hashes[:-1]))

    def _all(self) -> Iterator[NDArray[np.int64]]:
        """Yield all hashes, as many at once as may be in memory."""
        if self._spilled:
            self._file.seek(0)
            while block := self._file.read(8 * self._in_memory):
                yield np.frombuffer(block, np.int64)
        if self._recent:
            yield np.frombuffer(self._recent, np.int64)
