"""Reading sequences into checked records, in memory that does not grow with the input."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from operator import itemgetter

from common.alphabet import PROTEIN, Alphabet
from common.errors import InputError, VirnucproError
from common.job.cleaning import (
    AMINO_ACIDS_ONLY,
    GAP_SIGNS,
    SURELY_DNA,
    clean,
    looks_like_nucleic_acid,
    place_of,
    unknown_letters,
)
from common.job.output_form import Empty, Gaps, Long, Unknown
from common.job.records import Record
from producer.input.advice import (
    EMPTY_ADVICE,
    EMPTY_FILE_ADVICE,
    gap_advice,
    stands_for_a_letter,
    unknown_advice,
)
from producer.input.blocks import Block, split_records, tidied
from producer.input.columns import USUAL_COLUMNS, Columns
from producer.input.duplicates import DuplicateCounter
from producer.input.formats import blocks_of
from producer.input.problems import Problem, Problems, first_line, nothing_left
from producer.input.sources import AnySource

HEADER, RESIDUES = itemgetter(1), itemgetter(2)  # of a record

#: Make a record of a tuple: its own constructor would take a tenth of the time of reading.
as_record = partial(tuple.__new__, Record)


class Reader:
    """An iterator over the records of a source, or of several, which checks each of them.

    It counts the records that are longer than ``max_residues`` (``long_records``), that were
    ``skipped`` for their letters or because they were ``empty``, that had letters ``replaced``,
    that are ``gapped`` or had their gaps ``stripped``, that were ``rna``, and that surely are DNA
    although proteins are expected (``like_dna``).
    """

    def __init__(
        self,
        source: AnySource,
        *,
        alphabet: Alphabet,
        unknown: Unknown,
        long: Long,
        max_residues: int,
        gaps: Gaps = "keep",
        empty: Empty = "error",
        columns: Columns = USUAL_COLUMNS,
    ) -> None:
        self.source = source
        self.alphabet = alphabet
        self.unknown = unknown
        self.long = long
        self.max_residues = max_residues
        self.gaps = gaps
        self.on_empty = empty
        self.columns = columns
        self.read = self.long_records = self.skipped = self.empty = self.replaced = 0
        self.gapped = self.stripped = self.rna = self.like_dna = 0
        self._plain = alphabet.encoded.translate(None, GAP_SIGNS.encode())
        self._easy = self._plain.lower() + b"*"
        self._like_dna = 0  # short ones, too
        #: The number of records of each source that was read to its end.
        self.records_of: list[int] = []
        self._part = source.parts[0]  # the one that is being read
        self._before = 0  # records of the sources before it
        self._ids = DuplicateCounter()
        self._problems = Problems()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order; ``row`` is the position in the input.

        After the first bad record none is yielded any more: the others are only checked.

        Raises:
            InputError: the input is bad; the error names file, lines and records.
        """
        for part in self.source.parts:
            self._part, self._before = part, self.read
            for block in self._blocks():
                records = self._checked(block)
                if not self._problems.count:
                    yield from records
            self._end_part()
        if self._problems.count:
            raise self._problems.error(self.source)
        if self.skipped + self.empty == self.read:  # also if all sources were empty
            raise nothing_left(self.source, self.empty, self.skipped)

    @property
    def looks_like_dna(self) -> bool:
        """Whether most records look like DNA or RNA although proteins are expected."""
        return 2 * self._like_dna > self.read

    def duplicate_ids(self) -> int:
        """Return how many records so far have the id of an earlier one."""
        return self._ids.duplicates()

    def _end_part(self) -> None:
        """Count the records of a source that was read to its end."""
        found = self.read - self._before
        self.records_of.append(found)
        if found:
            return
        part, several = self._part, len(self.source.parts) > 1
        if several and self.on_empty == "skip":
            return
        advice = f" {EMPTY_FILE_ADVICE}." if several else ""
        raise InputError(f"{part.shown} is empty: it contains no record.{advice}", path=part.path)

    def _blocks(self) -> Iterator[Block]:
        name = self._part.shown
        try:
            yield from blocks_of(self._part, self.columns)
        except VirnucproError:
            raise
        except Exception as error:  # each way of compression has errors of its own
            raise InputError(
                f"{name}, after record {self.read - self._before}: cannot be read to its end "
                f"({first_line(error)}). Is the file complete? Nothing was queued.",
                path=name,
            ) from error

    def _checked(self, block: Block) -> list[Record]:
        """Return the records of a block, without bad ones and those to be skipped."""
        records = self._plain_records(block.text)
        if records is None:
            records = list(self._cleaned_records(block))
        else:
            self._check_lengths(records, block)
            self.read += len(records)
        sequences = list(map(RESIDUES, records))
        if self.alphabet is PROTEIN and any(map(AMINO_ACIDS_ONLY.isdisjoint, sequences)):
            alike = list(filter(looks_like_nucleic_acid, sequences))
            self._like_dna += len(alike)
            self.like_dna += sum(len(letters) >= SURELY_DNA for letters in alike)
        self._ids.add(first_words(map(HEADER, records)))
        return records

    def _plain_records(self, text: str) -> list[Record] | None:
        """Return the records of a block if they are but letters and final stops, else None.

        Nearly all blocks are so, and looking at each record in Python would take longer than
        reading it.
        """
        if "\0" in text:
            return None
        pieces = [piece.partition("\n") for piece in split_records(text)]
        sequences = [lines.replace("\n", "") for _, _, lines in pieces]
        strange = strange_letters(sequences, self._plain)
        if strange and not strange.translate(None, self._easy):
            sequences = [letters.upper().rstrip("*") for letters in sequences]
            strange = strange_letters(sequences, self._plain)
        if strange or not all(sequences):
            return None
        headers = [header.rstrip() for header, _, _ in pieces]
        return list(map(as_record, zip(count(self.read), headers, sequences)))

    def _check_lengths(self, records: list[Record], block: Block) -> None:
        long = sum(map(self.max_residues.__lt__, map(len, map(RESIDUES, records))))
        self.long_records += long
        if long and self.long == "error":
            lines = block.lines(split_records(block.text))
            for record, line in zip(records, lines, strict=True):
                if len(record.residues) > self.max_residues:
                    self._problems.add(self._too_long(record, line, block.word))

    def _cleaned_records(self, block: Block) -> Iterator[Record]:
        pieces = split_records(tidied(block.text))
        for piece, line in zip(pieces, block.lines(pieces), strict=True):
            header, _, text = piece.partition("\n")
            header = header.rstrip()
            residues = self._cleaned(header, text, line, block)
            if isinstance(residues, Problem):
                self._problems.add(residues)
            elif residues is not None:
                record = Record(self.read, header, residues)
                if len(residues) > self.max_residues:
                    self.long_records += 1
                    if self.long == "error":
                        self._problems.add(self._too_long(record, line, block.word))
                yield record
            self.read += 1

    def _cleaned(self, header: str, text: str, line: int, block: Block) -> str | Problem | None:
        """Return a record's letters; None if it is to be skipped."""
        number = self.read - self._before + 1
        problem = partial(Problem, self._part, number, header, word=block.word)
        first = line + block.header_lines  # of the letters
        if "\0" in header:  # HDF5 could not store it
            return problem(line, "has a NUL in its header", "The file may be damaged")
        residues, gapped, rna = clean(text, self.alphabet, self.gaps)
        if not residues:
            if self.on_empty == "skip":
                self.empty += 1
                return None
            return problem(line, "has no sequence", EMPTY_ADVICE)
        if gapped and self.gaps == "error":
            number, position, sign = place_of(set(GAP_SIGNS), text)
            what = f"has {sign!r} at position {position}, which is a gap"
            return problem(first + number, what, gap_advice(self.alphabet))
        unknown = unknown_letters(residues, self.alphabet)
        if unknown:
            if self.unknown == "skip":
                self.skipped += 1
                return None
            refused = {s for s in unknown if self.unknown == "error" or not stands_for_a_letter(s)}
            if refused:
                number, position, sign = place_of(refused, text)
                what = (
                    f"has {sign!r} at position {position}, which is not one of the model's "
                    f"{self.alphabet.letter}s"
                )
                return problem(first + number, what, unknown_advice(sign, residues, self.alphabet))
            self.replaced += 1
            known, x = self.alphabet.letters, self.alphabet.unknown
            residues = "".join([letter if letter in known else x for letter in residues])
        self.rna += rna
        self.stripped += gapped and self.gaps == "strip"
        self.gapped += gapped and self.gaps == "keep" and self.alphabet is PROTEIN
        return residues

    def _too_long(self, record: Record, line: int, word: str) -> Problem:
        return Problem(
            self._part,
            record.row - self._before + 1,
            record.header,
            line,
            f"has {len(record.residues):,} {self.alphabet.plural}, more than the limit of "
            f"{self.max_residues:,}",
            "Raise max_residues, or set long to truncate or window",
            word,
        )


def strange_letters(sequences: list[str], plain: bytes) -> bytes:
    """Return all signs of some sequences that are not plain letters."""
    return "".join(sequences).encode().translate(None, plain)


def first_words(headers: Iterable[str]) -> list[str]:
    """Return the ids of many headers; see ``first_word``, whose calls would take longer."""
    return [words[0] if (words := header.split(maxsplit=1)) else "" for header in headers]
