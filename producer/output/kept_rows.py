"""Rows that are kept in temporary files until later ones are made from them."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Array, Embeddings, entries
from common.job.output_form import PAIR_SCORES, POOLED, RECORD_SCORES

#: Where the residues, and the pairs of residues, of a record begin.
STARTS = ("start", "pair_start")


class RowSet:
    """A set of rows, with the position of each among all; it takes two bits for a row number."""

    def __init__(self) -> None:
        self._words = np.zeros(1, np.uint64)
        self._before = np.zeros(1, np.int64)

    def add(self, rows: Array) -> None:
        """Add rows; call ``count`` after the last."""
        if not len(rows):
            return
        words = int(rows.max()) // 64 + 1
        if words > len(self._words):
            self._words = np.pad(
                self._words, (0, max(words, 2 * len(self._words)) - len(self._words))
            )
        np.bitwise_or.at(self._words, rows >> 6, bit(rows))

    def count(self) -> int:
        """Count the rows; return their number."""
        counts = np.bitwise_count(self._words).astype(np.int64)
        self._before = np.cumsum(counts) - counts
        return int(counts.sum())

    def has(self, rows: Array) -> Array:
        """Return which of some rows are in the set."""
        found: Array = np.zeros(len(rows), np.bool_)
        known = rows >> 6 < len(self._words)
        found[known] = (self._words[rows[known] >> 6] & bit(rows[known])) != 0
        return found

    def positions(self, rows: Array) -> Array:
        """Return the positions of rows that are in the set."""
        below = self._words[rows >> 6] & (bit(rows) - np.uint64(1))
        positions: Array = self._before[rows >> 6] + np.bitwise_count(below)
        return positions


def bit(rows: Array) -> Array:
    """Return the bit of each row in its word of 64."""
    bits: Array = np.left_shift(np.uint64(1), (rows & 63).astype(np.uint64))
    return bits


class KeptRows:
    """Rows with all that they have but their names, in files without a name.

    One file has what is of records, at their positions; another one for each kind of what is of
    residues has it in the order in which it came.
    """

    def __init__(self, count: int, folder: Path | None = None) -> None:
        """Make room for rows.

        Args:
            count: number of rows.
            folder: where the files are; None: where temporary files are.
        """
        self._count = count
        self._folder = folder
        self._dtype: np.dtype[Any] | None = None  # of a record
        self._files: dict[str, BinaryIO] = {}
        self._residues: dict[str, Array] = {}  # no rows of each kind, for its type and shape
        self._letters = self._pairs = 0

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def write(self, first: int, part: Embeddings) -> None:
        """Write rows to the positions from ``first`` on."""
        columns = {name: v for name, v in part.columns.items() if isinstance(v, np.ndarray)}
        if self._dtype is None:
            of_record = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
            self._dtype = np.dtype([*of_record, *((start, np.int64) for start in STARTS)])
            self._residues = {name: values[:0] for name, values in part.ragged.items()}
            self._file("").truncate(self._count * self._dtype.itemsize)
        records = np.empty(len(part), self._dtype)
        for name, column in columns.items():
            records[name] = column
        squares = part.lengths**2
        records["start"] = self._letters + np.cumsum(part.lengths) - part.lengths
        records["pair_start"] = self._pairs + np.cumsum(squares) - squares
        file = self._file("")
        file.seek(first * self._dtype.itemsize)
        write(file, records)
        for name, values in part.ragged.items():
            write(self._file(name), values)
        self._letters += int(part.lengths.sum())
        self._pairs += int(squares.sum())

    def read(self, positions: Array) -> Embeddings:
        """Return the rows at some positions, without names.

        Raises:
            ValueError: some were not written.
        """
        if self._dtype is None:
            raise ValueError("no rows were kept")
        # Mapped only while it is read: what is not mapped does not count as this process's memory.
        records = np.memmap(self._file(""), self._dtype, "r", shape=(self._count,))[positions]
        if not records["lengths"].all():  # no record is empty
            raise ValueError("rows were not kept that are needed")
        ragged = {name: self._read(name, none, records) for name, none in self._residues.items()}
        return embeddings_of(records, ragged)

    def _read(self, name: str, none: Array, records: Array) -> Array:
        """Return the entries of one kind of some records."""
        is_pair = name in PAIR_SCORES
        total = self._pairs if is_pair else self._letters
        start, lengths = records[STARTS[is_pair]], records["lengths"]
        mapped = np.memmap(*(self._file(name), none.dtype, "r"), shape=(total, *none.shape[1:]))
        found: Array = mapped[entries(start, lengths**2 if is_pair else lengths)]
        return found

    def _file(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = TemporaryFile(dir=self._folder)  # noqa: SIM115  # see close
        return self._files[name]


def write(file: BinaryIO, values: Array) -> None:
    """Write numbers, so that they can be mapped."""
    if values.size:
        file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        file.flush()


def embeddings_of(records: Array, ragged: dict[str, Array]) -> Embeddings:
    """Return rows without names, from what ``KeptRows`` keeps of them."""
    names = records.dtype.names or ()
    scores = {name: records[name] for name in names if name in RECORD_SCORES}
    none = [""] * len(records)
    return Embeddings(
        rows=records["rows"],
        lengths=records["lengths"],
        input_lengths=records["input_lengths"],
        precision=records["precision"],
        headers=none,
        ids=none,
        pooled={name: records[name] for name in names if name in POOLED},
        residues=ragged.get("residues"),
        scores=scores | {name: v for name, v in ragged.items() if name != "residues"},
    )
