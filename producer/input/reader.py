"""Reading sequences into checked records, in memory that does not grow with the input."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from itertools import count
from operator import itemgetter

from common.alphabet import PROTEIN
from common.errors import InputError, VirnucproError
from common.job.cleaning import (
    AMINO_ACIDS_ONLY,
    GAP_SIGNS,
    SURELY_DNA,
    looks_like_nucleic_acid,
)
from common.job.records import Record
from producer.input.advice import EMPTY_FILE_ADVICE
from producer.input.blocks import Block, split_records, tidied
from producer.input.checks import RecordChecks
from producer.input.complaints import Complaint
from producer.input.duplicates import DuplicateCounter
from producer.input.formats import blocks_of
from producer.input.molecule import EARLY_RECORDS
from producer.input.problems import Problem, first_line
from producer.input.source import Source

HEADER, RESIDUES = itemgetter(1), itemgetter(2)  # of a record

#: Make a record of a tuple: its own constructor would take a tenth of the time of reading.
as_record = partial(tuple.__new__, Record)


class Reader(RecordChecks):
    """An iterator over the records of a source, or of several, which checks each of them.

    It has the counts of ``RecordChecks``, ``records_of`` each source, and all bad records as
    ``problems``.
    """

    @cached_property
    def plain(self) -> bytes:
        """The letters of the alphabet."""
        return self.alphabet.encoded.translate(None, GAP_SIGNS.encode())

    @cached_property
    def easy(self) -> bytes:
        """What is not plain, but easily made so."""
        return self.plain.lower() + b"*"

    @cached_property
    def ids(self) -> DuplicateCounter:
        """The ids of all records."""
        return DuplicateCounter()

    @cached_property
    def blocks_of(self) -> Callable[[Source], Iterator[Block]]:
        """What reads the blocks of a source."""
        return partial(blocks_of, columns=self.columns)

    @cached_property
    def records_of(self) -> list[int]:
        """The number of records of each source that was read to its end."""
        return []

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order; ``row`` is the position in the input.

        After the first bad record none is yielded any more: the others are only checked.

        Raises:
            InputError: the input is bad; the error names file, lines and records.
        """
        for part in self.source.parts:
            for _, records in self.read_part(part):
                if refused := self.other_molecule(to_the_end=False):
                    raise refused
                if not self.problems.count:
                    yield from records
        self.check_end()

    def check_end(self) -> None:
        """Check what was read, which is everything.

        Raises:
            InputError: it is bad.
        """
        if refused := self.other_molecule(to_the_end=True):
            raise refused
        if self.problems.count:
            raise self.problems.error(self.source)
        if refused := self.nothing_left():
            raise refused

    def read_part(self, part: Source) -> Iterator[tuple[Block, list[Record]]]:
        """Yield the blocks of one source, each with those of its records that are good.

        Raises:
            InputError: the source is of no format that is read, damaged or empty.
        """
        self.begin_part(part)
        for block in self.readable(self.blocks_of(part)):
            yield block, self.checked(block)
        self.end_part()

    @property
    def looks_like_dna(self) -> bool:
        """Whether most records look like DNA or RNA although proteins are expected."""
        return 2 * self.like_dna_of_any_length > self.read

    def duplicate_ids(self) -> int:
        """Return how many records so far have the id of an earlier one."""
        return self.ids.duplicates()

    def begin_part(self, part: Source) -> None:
        """Take the next blocks for those of another source."""
        self._part, self._before = part, self.read

    def end_part(self) -> None:
        """Count the records of a source that was read to its end.

        Raises:
            InputError: there are none.
        """
        found = self.read - self._before
        self.records_of.append(found)
        if found:
            return
        part, several = self._part, len(self.source.parts) > 1
        if several and self.on_empty == "skip":
            return
        advice = f" {EMPTY_FILE_ADVICE}." if several else ""
        raise InputError(f"{part.shown} is empty: it contains no record.{advice}", path=part.path)

    def readable(self, found: Iterator[Block]) -> Iterator[Block]:
        """Yield blocks of the source that is being read.

        Raises:
            InputError: there is an error in reading them.
        """
        try:
            yield from found
        except VirnucproError:
            raise
        except Exception as error:  # each way of compression has errors of its own
            raise self.unreadable(error) from error

    def unreadable(self, error: Exception) -> InputError:
        """Return the error of a source that failed to be read after the records so far."""
        name = self._part.shown
        return InputError(
            f"{name}, after record {self.read - self._before}: cannot be read to its end "
            f"({first_line(error)}). Is the file complete? Nothing was queued.",
            path=name,
        )

    def checked(self, block: Block) -> list[Record]:
        """Return the records of a block, without bad ones and those to be skipped."""
        before = self.read
        records = self._plain_records(block.text)
        if records is None:
            records = list(self._cleaned_records(block))
        else:
            self.read += len(records)
            records = self._without_too_long(records, block)
        if self.alphabet is PROTEIN:
            self._count_nucleic_acids(records, block, before)
        self.ids.add(first_words(map(HEADER, records)))
        return records

    def _count_nucleic_acids(self, records: list[Record], block: Block, first: int) -> None:
        """Count the records of a block that look like DNA or RNA.

        Args:
            first: the row of the block's first record.
        """
        # Nearly every protein has one of these letters among its first: looking at the shares of
        # each record would take a tenth of the time of reading. The first records are looked at all
        # the same, as a letter may be wrong.
        early = first < EARLY_RECORDS
        if not early and not any(map(AMINO_ACIDS_ONLY.isdisjoint, map(RESIDUES, records))):
            return
        doubtful = [record for record in records if AMINO_ACIDS_ONLY.isdisjoint(record.residues)]
        alike = [record for record in doubtful if looks_like_nucleic_acid(record.residues)]
        self.like_dna_of_any_length += len(alike)
        self.like_dna += sum(len(record.residues) >= SURELY_DNA for record in alike)
        if self.given_molecule != "auto":
            return
        for record in records if early else doubtful:
            if self._other.belongs(record.residues):

                def place(what: str, record: Record = record) -> Problem:
                    lines = list(block.lines(split_records(tidied(block.text))))
                    complaint = Complaint(what, "", "letters")
                    return self._problem(record.header, record.row, block)(
                        lines[record.row - first], *complaint
                    )

                self._other.add(record.residues, place)

    def _plain_records(self, text: str) -> list[Record] | None:
        """Return the records of a block if they are but letters and final stops, else None.

        Nearly all blocks are so, and looking at each record in Python would take longer than
        reading it.
        """
        if "\0" in text:
            return None
        pieces = [piece.partition("\n") for piece in split_records(text)]
        sequences = [lines.replace("\n", "") for _, _, lines in pieces]
        strange = strange_letters(sequences, self.plain)
        if strange and not strange.translate(None, self.easy):
            sequences = [letters.upper().rstrip("*") for letters in sequences]
            strange = strange_letters(sequences, self.plain)
        if strange or not all(sequences):
            return None
        if self.min_length > 1 and min(map(len, sequences)) < self.min_length:
            return None
        headers = [header.rstrip() for header, _, _ in pieces]
        return list(map(as_record, zip(count(self.read), headers, sequences)))

    def _without_too_long(self, records: list[Record], block: Block) -> list[Record]:
        """Count long records; where they are errors, return the others."""
        long = sum(map(self.max_residues.__lt__, map(len, map(RESIDUES, records))))
        self.long_records += long
        if not long or self.long != "error":
            return records
        lines = block.lines(split_records(block.text))
        for record, line in zip(records, lines, strict=True):
            if len(record.residues) > self.max_residues:
                self._add_too_long(record.header, record.row, len(record.residues), line, block)
        return [record for record in records if len(record.residues) <= self.max_residues]

    def _cleaned_records(self, block: Block) -> Iterator[Record]:
        pieces = split_records(tidied(block.text))
        for piece, line in zip(pieces, block.lines(pieces), strict=True):
            header, _, text = piece.partition("\n")
            header = header.rstrip()
            residues = self._cleaned(header, text, line, block)
            row, long = self.read, False
            self.read += 1
            if isinstance(residues, Problem):
                self.problems.add(residues)
                continue
            if residues is None:
                continue
            long = len(residues) > self.max_residues
            self.long_records += long
            if long and self.long == "error":
                self._add_too_long(header, row, len(residues), line, block)
            else:
                yield Record(row, header, residues)


def strange_letters(sequences: list[str], plain: bytes) -> bytes:
    """Return all signs of some sequences that are not plain letters."""
    return "".join(sequences).encode().translate(None, plain)


def first_words(headers: Iterable[str]) -> list[str]:
    """Return the ids of many headers; see ``first_word``, whose calls would take longer."""
    return [words[0] if (words := header.split(maxsplit=1)) else "" for header in headers]
