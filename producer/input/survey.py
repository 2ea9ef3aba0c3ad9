"""What an input holds: everything is counted, and nothing stops the reading before its end."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import repeat

import numpy as np

from common.errors import InputError
from common.job.cleaning import GAP_SIGNS, without_stop
from common.job.records import Record
from producer.input.blocks import Block, split_records, tidied
from producer.input.identical import NONE, RESIDUES, Chunk, with_originals
from producer.input.reader import Reader

#: The first lengths of the bins of a histogram: 1, 2, 5, 10, 20, 50 and so on.
BINS = np.array([factor * 10**power for power in range(10) for factor in (1, 2, 5)])

#: What a block without anything unusual consists of.
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EASY = LETTERS + LETTERS.lower() + b"*"


def windows_of(length: int, size: int, overlap: int) -> int:
    """Return the number of windows that a record is embedded in.

    Args:
        length: letters of the record.
        size: letters of a window.
        overlap: fewest letters that neighbours share.
    """
    return 1 if length <= size else -(-(length - overlap) // (size - overlap))


class Survey:
    """Counts of an input beside those of its reader.

    Args:
        reader: of the input; nothing of it was read yet.
        overlap: fewest letters that windows of long records share; None: they are truncated.
    """

    def __init__(self, reader: Reader, overlap: int | None) -> None:
        self.reader = reader
        self.overlap = overlap
        #: Sources that cannot be read to their end, and what is wrong with the whole.
        self.errors: list[str] = []
        self.records_of: list[int] = []
        #: Numbers of letters, and of other signs, in upper case.
        self.letters: Counter[str] = Counter()
        self.lower_case = 0
        #: Records in each bin of lengths. Lengths are those of the input, gaps included.
        self.lengths = np.zeros(len(BINS), np.int64)
        self.shortest = self.longest = self.total = 0
        self.gapped = self.gaps = 0  # records, and signs
        #: Letters that are not embedded, of records that are truncated.
        self.lost = 0
        #: Windows of records that are longer than one.
        self.windows = 0
        #: Rows with the letters of an earlier one.
        self.identical = 0

    def chunks(self, *, dedup: bool) -> Iterator[Chunk]:
        """Read everything; yield the records that would be rows, if there were no others.

        Args:
            dedup: whether to tell those that are identical to an earlier one.
        """
        for records, originals in with_originals(self._records()):
            if isinstance(originals, list):  # else none is identical
                self.identical += sum(row != NONE for row in originals)
            yield records, originals if dedup else repeat(NONE)

    def _records(self) -> Iterator[Record]:
        reader = self.reader
        for part in reader.source.parts:
            before = reader.read
            try:
                for block, records in reader.read_part(part):
                    self._look_at(block)
                    self._count_rows(records)
                    yield from records
                    if not self.errors and (error := reader.other_molecule(to_the_end=False)):
                        self.errors.append(str(error))
            except InputError as error:
                self.errors.append(str(error))
            self.records_of.append(reader.read - before)
        last = reader.other_molecule(to_the_end=True) or reader.nothing_left()
        if last is not None and not self.errors:
            self.errors.append(str(last))

    def _count_rows(self, records: list[Record]) -> None:
        most = self.reader.max_residues
        for length in filter(most.__lt__, map(len, map(RESIDUES, records))):
            if self.overlap is None:
                self.lost += length - most
            else:
                self.windows += windows_of(length, most, self.overlap)

    def _look_at(self, block: Block) -> None:
        """Count letters and lengths of all records of a block, bad ones among them."""
        sequences = texts_of(block.text)
        joined = "".join(sequences)
        data = joined.encode(errors="replace")
        if data.translate(None, EASY):
            sequences = ["".join(text.split()) for text in texts_of(tidied(block.text))]
            joined = "".join(sequences)
            data = joined.encode(errors="replace")
            self._look_for_gaps(sequences)
        if joined.isascii():
            numbers = np.bincount(np.frombuffer(data, np.uint8))
            self._count({chr(code): int(numbers[code]) for code in np.flatnonzero(numbers)})
        else:
            self._count(Counter(joined))
        lengths = np.fromiter(map(len, (s.rstrip("*") for s in sequences)), np.int64)
        lengths = lengths[lengths > 0]
        if lengths.size == 0:
            return
        bins = np.searchsorted(BINS, lengths, "right") - 1
        self.lengths += np.bincount(bins, minlength=len(BINS))
        self.shortest = min(self.shortest or int(lengths.min()), int(lengths.min()))
        self.longest = max(self.longest, int(lengths.max()))
        self.total += int(lengths.sum())

    def _look_for_gaps(self, sequences: list[str]) -> None:
        for text in map(without_stop, sequences):
            signs = sum(map(text.count, GAP_SIGNS))
            self.gapped += 0 < signs < len(text)
            self.gaps += signs if signs < len(text) else 0

    def _count(self, found: Mapping[str, int]) -> None:
        """Count letters as they are written."""
        for sign, number in found.items():
            self.letters[sign.upper() if sign.isascii() else sign] += number
            self.lower_case += number if sign.islower() else 0


def texts_of(text: str) -> list[str]:
    """Return the sequences of a block without line breaks."""
    return [piece.partition("\n")[2].replace("\n", "") for piece in split_records(text)]
