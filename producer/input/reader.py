"""Reading FASTA into checked records, in memory that does not grow with the input."""

from collections.abc import Iterator
from itertools import count, islice
from operator import itemgetter
from typing import cast

from dnaio import FastaReader, FileFormatError

from common.alphabet import DNA, PROTEIN, Alphabet
from common.errors import InputError, VirnucproError
from common.job.output_form import Long, Unknown
from common.job.records import SHOWN, Record, first_word
from producer.input.duplicates import DuplicateCounter
from producer.input.source import Source

#: Number of records checked together: nearly all need no change, and checking each of them in
#: Python would take longer than reading it.
RECORDS_PER_CHECK = 100

HEADER, RESIDUES = itemgetter(1), itemgetter(2)  # of a record

#: Letters that are codes of amino acids, but not of nucleotides.
AMINO_ACIDS_ONLY = frozenset("EFILPQ")


class Reader:
    """An iterator over the records of a source, which checks each of them.

    It counts the records that are longer than ``max_residues`` (``long_records``), that were
    ``skipped``, and that had letters ``replaced``. ``looks_like_dna`` tells whether the first
    records look like DNA although proteins are expected.
    """

    def __init__(
        self,
        source: Source,
        *,
        alphabet: Alphabet,
        unknown: Unknown,
        long: Long,
        max_residues: int,
    ) -> None:
        self.source = source
        self.alphabet = alphabet
        self.unknown = unknown
        self.long = long
        self.max_residues = max_residues
        self.long_records = self.skipped = self.replaced = 0
        self.looks_like_dna = False
        self._known = "".join(sorted(alphabet.letters)).encode()
        self._ids = DuplicateCounter()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order; ``row`` is the position in the input.

        Raises:
            InputError: the input is bad; the error names file, line and record.
        """
        row = 0
        for chunk in self._chunks():
            if row == 0:
                self.looks_like_dna = self.alphabet is PROTEIN and are_bases(chunk)
            records = (
                chunk
                if is_plain(chunk, self._known)
                else list(filter(None, map(self._normalised, chunk)))
            )
            self._count_long(records)
            self._ids.add(map(first_word, map(HEADER, records)))
            yield from records
            row += len(chunk)
        if row == 0:
            raise InputError(
                f"{self.source.shown} is empty: it contains no FASTA record.",
                path=self.source.path,
            )
        if self.skipped == row:
            raise InputError(
                f"{self.source.shown}: all {row} records were skipped.", path=self.source.path
            )

    def duplicate_ids(self) -> int:
        """Return how many records so far have the id of an earlier one."""
        return self._ids.duplicates()

    def _chunks(self) -> Iterator[list[Record]]:
        """Yield the records as they are in the file, ``RECORDS_PER_CHECK`` at a time."""
        name, reader, row = self.source.shown, None, count()

        # dnaio's own record class refuses headers that are not ASCII.
        def as_record(header: str, letters: str, _qualities: None) -> Record:
            return Record(next(row), header, letters)

        try:
            with self.source.open() as file:
                reader = FastaReader(file, sequence_class=as_record)
                records = cast(Iterator[Record], iter(reader))
                while chunk := list(islice(records, RECORDS_PER_CHECK)):
                    yield chunk
        except FileFormatError as error:
            number = None if error.line is None else error.line + 1
            line = "" if number is None else f", line {number}"
            raise InputError(
                f"{name}{line}: not FASTA. {error.message}", path=name, line=number
            ) from error
        except UnicodeDecodeError as error:
            number = self.source.first_line_not_utf8()
            place = f"after record {seen(reader)}" if number is None else f"line {number}"
            raise InputError(
                f"{name}, {place}: neither FASTA nor one of gz, bz2, xz and zst, or a header that "
                f"is not UTF-8 ({error.reason}).",
                path=name,
                line=number,
            ) from error
        except VirnucproError:
            raise
        except Exception as error:  # each way of compression has errors of its own
            raise InputError(
                f"{name}, after record {seen(reader)}: cannot be read to its end ({error}). Is "
                "the file complete? Nothing was queued.",
                path=name,
            ) from error

    def _normalised(self, record: Record) -> Record | None:
        """Return a record in upper case without a final ``*``; None if it is to be skipped."""
        if "\0" in record.header:  # HDF5 could not store it
            raise self._error(record, "has a NUL in its header: the file may be damaged")
        # As bytes: str.upper() would turn a German sharp s into SS.
        residues = record.residues.encode().upper().decode().rstrip("*")
        if not residues:
            raise self._error(record, "has no sequence: remove it")
        if not residues.encode(errors="replace").translate(None, self._known):
            return record._replace(residues=residues)
        if self.unknown == "skip":
            self.skipped += 1
            return None
        if self.unknown == "x":
            self.replaced += 1
            letters, unknown = self.alphabet.letters, self.alphabet.unknown
            known = [letter if letter in letters else unknown for letter in residues]
            return record._replace(residues="".join(known))
        raise self._error(record, self._describe_unknown(record, residues))

    def _describe_unknown(self, record: Record, residues: str) -> str:
        alphabet = self.alphabet
        position = next(i for i, letter in enumerate(residues) if letter not in alphabet.letters)
        letters = set(residues)
        hint = ""
        if alphabet is DNA and letters <= PROTEIN.letters and letters & AMINO_ACIDS_ONLY:
            hint = "It looks like a protein: give a protein model. "
        elif alphabet is DNA and residues[position] == "U":
            hint = "It looks like RNA: write T for U. "
        return (
            f"has {record.residues[position]!r} at position {position + 1}, which is not one of "
            f"the model's {alphabet.letter}s. {hint}Fix it, or set unknown to x (embed it "
            f"as {alphabet.unknown}) or to skip (leave such records out)"
        )

    def _count_long(self, records: list[Record]) -> None:
        long = sum(map(self.max_residues.__lt__, map(len, map(RESIDUES, records))))
        self.long_records += long
        if long and self.long == "error":
            record = next(r for r in records if len(r.residues) > self.max_residues)
            raise self._error(
                record,
                f"has {len(record.residues):,} {self.alphabet.plural}, more than the limit of "
                f"{self.max_residues:,} (raise max_residues, or set long to truncate or window)",
            )

    def _error(self, record: Record, what: str) -> InputError:
        number, header = record.row + 1, record.header
        shown = header if len(header) <= SHOWN else f"{header[:SHOWN]}…"
        if self.source.path is None:
            return InputError(f"Record {number} ({shown!r}) {what}.", record=number)
        line = self.source.line_of_record(number)
        place = self.source.shown if line is None else f"{self.source.shown}, line {line}"
        return InputError(
            f"{place}: record {number} ({shown!r}) {what}.",
            path=self.source.shown,
            line=line,
            record=number,
        )


def is_plain(records: list[Record], known: bytes) -> bool:
    """Return whether none of these records needs a change or an error."""
    sequences = list(map(RESIDUES, records))
    letters = "".join(sequences).encode(errors="replace")
    return (
        all(sequences)
        and not letters.translate(None, known)
        and "\0" not in "".join(map(HEADER, records))
    )


def are_bases(records: list[Record]) -> bool:
    """Return whether the sequences contain only the letters of nucleic acids."""
    return not set().union(*map(RESIDUES, records)) - set("ACGTUNacgtun")


def seen(reader: FastaReader | None) -> int:
    """Return how many records were read before the reader stopped."""
    return reader.number_of_records if reader else 0
