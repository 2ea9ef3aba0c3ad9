"""Finding records with the same letters as an earlier one, in memory that does not grow with them.

Two records are identical if 127 bits of their letters' hash are, which begins with a random number:
nobody can make two that are not. Of 10^8 records the chance that any two are taken for identical
that are not is below 10^-22. All hashes are in a table with open addressing, the place of each
being its first bits, and those of many records are looked up together.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from operator import itemgetter
from typing import BinaryIO

import numpy as np
import xxhash

from common.embeddings.arrays import Array
from common.errors import UserError
from common.job.records import Record
from common.text import counted_bytes

#: Records that are looked up together: with fewer of them it would take longer, and the letters of
#: more do not fit into the cache.
TOGETHER = 4096

#: Bits of the number of entries that a table begins with, and of the largest in memory (100 MB).
FIRST_BITS, MEMORY_BITS = 18, 22

#: The share of a table's entries that may be taken: 10^8 records take 3.2 GB, 2^27 entries.
LOAD = 0.75

#: Entries that are moved at once to a larger table.
MOVED = 1 << 18

#: Bytes that are written at once where space cannot be reserved.
ZEROS = 1 << 20

#: What stands for the original of a record that has none. Lower numbers are of rows of earlier
#: jobs: see ``place_of``.
NONE = -1

#: Records, with the row of each one's original, or NONE.
Chunk = tuple[Iterable[Record], Iterable[int]]

#: A function that returns two numbers of 64 bits ``[n, 2]`` for each of some sequences.
Hashes = Callable[[Iterable[str]], Array]

ROW, RESIDUES = itemgetter(0), itemgetter(2)  # of a record


def hashes_with(seed: int) -> Hashes:
    """Return a function that hashes letters; one with another seed has nothing to do with it."""

    def hashes(sequences: Iterable[str]) -> Array:
        digests = map(xxhash.xxh3_128_digest, map(str.encode, sequences), repeat(seed))
        return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)

    return hashes


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
    """The hashes of all records so far, with the row of each."""

    def __init__(
        self,
        hashes: Hashes | None = None,
        *,
        bits: int = FIRST_BITS,
        memory_bits: int = MEMORY_BITS,
    ) -> None:
        """Make an empty table.

        Args:
            hashes: hashes sequences; None: with a random seed.
            bits: of the number of entries of the first table.
            memory_bits: of the largest in memory; larger ones are in a temporary file.
        """
        self._hashes = hashes or hashes_with(secrets.randbits(64))
        self._memory_bits = memory_bits
        self._count = 0
        self._bits = bits
        #: Three numbers of 8 bytes each: the two of a hash, of which the first is not 0, and the
        #: row.
        self._entries = self._new_table()

    def find(self, rows: Array, sequences: Iterable[str]) -> Array | None:
        """Return the row of the first record with the letters of each one, or NONE.

        Args:
            rows: of the records, which follow all earlier ones.

        Returns:
            None if no record has the letters of an earlier one.

        Raises:
            UserError: there is no room for the temporary file.
        """
        entries = np.empty((len(rows), 3), np.uint64)
        entries[:, :2] = self._hashes(sequences)
        entries[:, 0] |= np.uint64(1)  # 0 is the place that is free
        entries[:, 2] = rows
        while self._count + len(rows) > LOAD * len(self._entries):
            self._grow()
        found = self._settle(entries)
        new = found == rows
        self._count += int(np.count_nonzero(new))
        return None if new.all() else np.where(new, NONE, found)

    def _settle(self, entries: Array) -> Array:
        """Put entries into the table, unless it has their hashes; return the rows that it has."""
        first, second, row = self._entries.T  # of the table
        my_first, my_second, my_row = np.ascontiguousarray(entries.T)
        found = np.empty(len(entries), np.int64)
        left = np.arange(len(entries))  # those that have no place yet
        places = (my_first >> np.uint64(64 - self._bits)).astype(np.int64)
        while len(left):
            there = first[places]
            free = np.flatnonzero(there == 0)[::-1]
            if len(free):
                # Of several for one place NumPy keeps the last, which is the first record.
                taken = places[free]
                first[taken] = my_first[free]
                second[taken] = my_second[free]
                row[taken] = my_row[free]
                there[free] = first[taken]
            same = np.flatnonzero(there == my_first)
            same = same[second[places[same]] == my_second[same]]
            found[left[same]] = row[places[same]]
            others = np.ones(len(left), np.bool_)
            others[same] = False
            left, my_first, my_second, my_row, places = (
                values[others] for values in (left, my_first, my_second, my_row, places)
            )
            places = (places + 1) & (len(first) - 1)
        return found

    def _grow(self) -> None:
        """Move all entries to a larger table, in order: each stays about where it was."""
        in_memory = self._bits + 2 <= self._memory_bits
        old, self._bits = self._entries, self._bits + (2 if in_memory else 1)
        self._entries = self._new_table()
        for start in range(0, len(old), MOVED):
            entries = np.array(old[start : start + MOVED])
            self._settle(entries[entries[:, 0] > 0])

    def _new_table(self) -> Array:
        shape = (1 << self._bits, 3)
        if self._bits <= self._memory_bits:
            return np.zeros(shape, np.uint64)
        size = 24 << self._bits
        try:
            # The memory map keeps the file open.
            with tempfile.TemporaryFile(prefix="virnucpro-identical-") as file:
                # All of it is taken now: a disk that is full later would end the process.
                reserve(file, size)
                return np.memmap(file, np.uint64, "r+", shape=shape)
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()} has no room for the {counted_bytes(size)} in which "
                f"identical sequences are looked for ({error.strerror}). Set TMPDIR to a folder "
                "that has, or switch dedup off."
            ) from error


def reserve(file: BinaryIO, size: int) -> None:
    """Make an empty file this long, with all of its space on the disk.

    Raises:
        OSError: there is too little.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, ZEROS):
        file.write(bytes(min(ZEROS, size - start)))
    file.flush()
