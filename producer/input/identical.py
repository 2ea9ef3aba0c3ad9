"""Finding records with the same letters as an earlier one, in memory that does not grow with them.

Two records are identical if 128 bits of their letters' hash are, which begins with a random number:
nobody can make two that are not. Of 10^8 records the chance that any two are taken for identical
that are not is below 10^-22. A table in memory with open addressing has 8 bytes for each slot: the
row, and some bits of its hash; a hash's first bits are its place. The whole hashes are in the
order of rows, in a file if they are many: it is written in order, and read where these bits agree.
"""

import os
import secrets
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from operator import itemgetter
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.errors import UserError
from common.job.records import Record
from common.text import counted_bytes

#: Records that are looked up together: with fewer of them it would take longer, and the letters of
#: more do not fit into the cache.
TOGETHER = 2048

#: Bits of the number of slots that a table begins with, and of the largest (2.1 GB). What would
#: have to go into a larger one is not looked for in later records.
FIRST_BITS, MOST_BITS = 18, 28

#: Bits of the first table of a large input, 32 MB, which then has to grow less often.
LARGE_BITS = 22

#: Hashes that are put into a larger table together.
MOVED_TOGETHER = 1 << 15

#: The share of a table's slots that may be taken.
LOAD = 0.5

#: Rows whose hashes are in memory, 64 MB, and by which the file of more is extended.
STEP = 1 << 22

#: Rows that a slot can name.
MOST_ROWS = 2**32 - 1

HALF, LOW, ODD = np.uint64(32), np.uint64(2**32 - 1), np.uint64(1)

#: Bytes that are written at once where space cannot be reserved.
ZEROS = 1 << 20

#: What stands for the original of a record that has none. Lower numbers are of rows of earlier
#: jobs: see ``place_of``.
NONE = -1

Array = NDArray[Any]

#: Records, with the row of each one's original, or NONE.
Chunk = tuple[Iterable[Record], Iterable[int]]

#: A function that returns two numbers of 64 bits ``[n, 2]`` for each of some sequences.
Hashes = Callable[[Iterable[str]], Array]

ROW, RESIDUES = itemgetter(0), itemgetter(2)  # of a record


def hashes_with(seed: int) -> Hashes:
    """Return a function that hashes letters; one with another seed has nothing to do with it."""

    def hashes(sequences: Iterable[str]) -> Array:
        return hashes_of(map(str.encode, sequences), seed)

    return hashes


def hashes_of(sequences: Iterable[bytes], seed: int) -> Array:
    """Return two numbers of 64 bits ``[n, 2]`` for each of some sequences."""
    digests = map(xxhash.xxh3_128_digest, sequences, repeat(seed))
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def with_originals(
    records: Iterable[Record], finder: "OriginalFinder | None" = None
) -> Iterator[Chunk]:
    """Yield all records, each with the row of the first that has the same letters."""
    finder, rest = finder or OriginalFinder(), iter(records)
    while chunk := list(islice(rest, TOGETHER)):
        rows = np.fromiter(map(ROW, chunk), np.int64, len(chunk))
        originals = finder.find(rows, map(RESIDUES, chunk))
        yield chunk, repeat(NONE) if originals is None else originals.tolist()


def with_earlier(chunks: Iterable[Chunk], find: Callable[[list[str]], Array]) -> Iterator[Chunk]:
    """Yield all records, those that earlier jobs have computed with that as their original.

    Args:
        find: returns the place of each sequence among the rows of earlier jobs; -1: it has none.
    """
    for records, originals in chunks:
        pairs = zip(records, originals, strict=False)
        while some := list(islice(pairs, TOGETHER)):
            places = find([record[2] for record, _ in some])
            known = np.array([original for _, original in some], np.int64)
            yield (
                [record for record, _ in some],
                np.where(places < 0, known, NONE - 1 - places).tolist(),
            )


def place_of(original: int) -> int:
    """Return the place among the rows of earlier jobs that an original stands for."""
    return NONE - 1 - original


def without_originals(records: Iterable[Record]) -> Iterator[Chunk]:
    """Yield all records as if none were identical."""
    yield records, repeat(NONE)


class OriginalFinder:
    """The hashes of all records so far, and a table of their rows."""

    def __init__(
        self,
        hashes: Hashes | None = None,
        *,
        bits: int = FIRST_BITS,
        most_bits: int = MOST_BITS,
        step: int = STEP,
    ) -> None:
        """Make an empty table.

        Args:
            hashes: hashes sequences; None: ``hashes_with`` the ``seed``, a random one.
            bits: of the number of slots of the first table.
            most_bits: of the largest.
            step: rows whose hashes are in memory, and by which the file of more is extended.
        """
        self.seed = secrets.randbits(64)
        self._hashes = hashes or hashes_with(self.seed)
        self._bits, self._most_bits = bits, most_bits
        self._count = 0
        #: The last 32 bits of the first number of a hash, and 1 + the row in 32 bits; 0 is free.
        self._slots: Array = np.zeros(1 << bits, np.uint64)
        self._step = step
        #: The two numbers of each row's hash; 0 for rows that are not in the table.
        self._log: Array = np.zeros((step, 2), np.uint64)
        self._file: BinaryIO | None = None  # that the log is in

    def find(self, rows: Array, sequences: Iterable[str]) -> Array | None:
        """Return the row of the first record with the letters of each one; see ``find_hashes``."""
        return self.find_hashes(rows, self._hashes(sequences))

    def find_hashes(self, rows: Array, hashes: Array) -> Array | None:
        """Return the row of the first record with the hash of each one, or NONE.

        Args:
            rows: of the records, ascending, which follow all earlier ones.
            hashes: of their letters ``[n, 2]``, with the seed of all others.

        Returns:
            None if no record has the letters of an earlier one.

        Raises:
            UserError: there is no room for the temporary file.
        """
        start, end = int(rows[0]), int(rows[-1]) + 1
        keep = self._make_room(len(rows), start) and end <= MOST_ROWS
        if keep:
            while end > len(self._log):
                self._extend_log(end)
            # A slice takes a fraction of the time; there is one unless records were left out.
            self._log[slice(start, end) if end - start == len(rows) else rows] = hashes
        found = self._settle(hashes, rows, keep=keep)
        copies = np.flatnonzero(found != rows)
        if keep:
            self._count += len(rows) - len(copies)
        if not len(copies):
            return None
        if keep:
            self._log[rows[copies]] = 0
        originals = np.full(len(rows), NONE, np.int64)
        originals[copies] = found[copies]
        return originals

    def _settle(self, hashes: Array, rows: Array, *, keep: bool) -> Array:
        """Return the rows that the table has for hashes; put those in that it has not.

        Args:
            keep: whether to put them in; their own row is returned in any case.
        """
        table, last = self._slots, len(self._slots) - 1
        places = (hashes[:, 0] >> np.uint64(64 - self._bits)).view(np.int64)
        slots = (hashes[:, 0] << HALF) | (rows + 1).view(np.uint64)
        found = rows.copy()
        left = np.arange(len(rows))  # those that have no place yet
        while len(left):
            there = table[places]
            free = (there == 0).nonzero()[0]
            if keep:
                # Of several for one place NumPy keeps the last, which is the first record.
                table[places[free[::-1]]] = slots[free[::-1]]
                there[free] = table[places[free]]
            else:
                there[free] = slots[free]
            others = (there != slots).nonzero()[0]
            left, places, slots, there = left[others], places[others], slots[others], there[others]
            alike = ((there ^ slots) <= LOW).nonzero()[0]
            if len(alike):
                known = (there[alike] & LOW).astype(np.int64) - 1
                same = (self._log[known] == hashes[left[alike]]).all(axis=1)
                found[left[alike[same]]] = known[same]
                others = np.ones(len(left), np.bool_)
                others[alike[same]] = False
                left, places, slots = left[others], places[others], slots[others]
            # Steps of a hash's own leave few to the end; odd ones come to all places.
            places = (places + ((slots >> HALF) | ODD).view(np.int64)) & last
        return found

    def _make_room(self, more: int, rows: int) -> bool:
        """Return whether so many records can be added to those of the first rows.

        The table is replaced by a larger one if need be.
        """
        while self._count + more > LOAD * len(self._slots):
            if self._bits >= self._most_bits:
                return False
            self._bits = min(self._bits + 2, self._most_bits)
            # The old table is not needed for the new one: never are both in memory.
            del self._slots
            self._slots = np.zeros(1 << self._bits, np.uint64)
            for start in range(0, rows, MOVED_TOGETHER):
                hashes = np.array(self._log[start : min(start + MOVED_TOGETHER, rows)])
                taken = np.flatnonzero(hashes.any(axis=1))
                self._settle(hashes[taken], start + taken, keep=True)
        return True

    def _extend_log(self, end: int) -> None:
        """Make room for the hashes of rows up to ``end``, in a temporary file."""
        rows = -(-end // self._step) * self._step
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="virnucpro-identical-")  # noqa: SIM115
                weakref.finalize(self, self._file.close)
                self._file.write(self._log.data)
                self._file.flush()
            # All of it is taken now: a disk that is full later would end the process.
            reserve(self._file, self._log.nbytes, 16 * rows)
            self._log = np.memmap(self._file, np.uint64, "r+", shape=(rows, 2))
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()} has no room for the {counted_bytes(16 * rows)} in which "
                f"identical sequences are looked for ({error.strerror}). Set TMPDIR to a folder "
                "that has, or switch dedup off."
            ) from error


def reserve(file: BinaryIO, start: int, end: int) -> None:
    """Make a file of ``start`` bytes ``end`` long, with all of its space on the disk.

    Raises:
        OSError: there is too little.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), start, end - start)
        return
    file.seek(start)
    for begin in range(start, end, ZEROS):
        file.write(bytes(min(ZEROS, end - begin)))
    file.flush()
