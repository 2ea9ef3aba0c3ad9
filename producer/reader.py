"""FASTA to checked records, one after another, in memory that does not grow with the input."""

import sys
import zlib
from collections.abc import Iterator
from itertools import count, islice
from lzma import LZMAError
from operator import itemgetter
from typing import Literal, cast

from botocore.exceptions import BotoCoreError
from dnaio import FastaReader, FileFormatError

from common.alphabet import ESM2_LETTERS
from common.batchfile import Record, first_word
from common.errors import UserError
from producer.duplicates import DuplicateCounter
from producer.source import Source

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError
else:
    from backports.zstd import ZstdError

Unknown = Literal["error", "x", "skip"]
Long = Literal["error", "truncate", "window"]

#: Records that are looked at as one: nearly all are plain, and to look at each in Python would
#: take longer than to read it.
CHECKED_TOGETHER = 100

HEADER, RESIDUES = itemgetter(1), itemgetter(2)  # of a record

KNOWN_BYTES = "".join(sorted(ESM2_LETTERS)).encode()

#: Characters of a header or a sequence that an error message shows.
SHOWN = 60


class Reader:
    """Iterates over the records of a source, checking each.

    Counts on the way how many were too long (``truncated``), left out (``skipped``), or had
    letters ``replaced`` by X.
    """

    def __init__(self, source: Source, *, unknown: Unknown, long: Long, max_residues: int) -> None:
        if long == "window":
            raise UserError(
                "--long window is not there yet for protein models: use truncate (embeds the "
                f"first {max_residues} residues) or error."
            )
        self.source = source
        self.unknown = unknown
        self.long = long
        self.max_residues = max_residues
        self.truncated = self.skipped = self.replaced = 0
        self._ids = DuplicateCounter()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order; ``row`` is the position in the input.

        Raises:
            UserError: what is wrong, with file, line and record.
        """
        row = 0
        for chunk in self._chunks():
            records = chunk if is_plain(chunk) else list(filter(None, map(self._normalised, chunk)))
            self._count_long(records)
            self._ids.add(map(first_word, map(HEADER, records)))
            yield from records
            row += len(chunk)
        if row == 0:
            raise UserError(f"{self.source.shown} is empty: there is no FASTA record in it.")
        if self.skipped == row:
            raise UserError(f"{self.source.shown}: all {row} records were skipped.")

    def duplicate_ids(self) -> int:
        """How many records so far have the id of an earlier one."""
        return self._ids.duplicates()

    def _chunks(self) -> Iterator[list[Record]]:
        """Records as they stand in the file, some at a time."""
        name, reader, row = self.source.shown, None, count()

        # dnaio's own class would refuse headers beyond ASCII.
        def as_record(header: str, letters: str, _qualities: None) -> Record:
            return Record(next(row), header, letters)

        try:
            with self.source.open() as file:
                reader = FastaReader(file, sequence_class=as_record)
                records = cast(Iterator[Record], iter(reader))
                while chunk := list(islice(records, CHECKED_TOGETHER)):
                    yield chunk
        except FileFormatError as error:
            line = "" if error.line is None else f", line {error.line + 1}"
            raise UserError(f"{name}{line}: not FASTA. {error.message}") from error
        except UnicodeDecodeError as error:
            found = self.source.line_beyond_utf8()
            place = f"after record {seen(reader)}" if found is None else f"line {found}"
            raise UserError(
                f"{name}, {place}: neither FASTA nor one of gz, bz2, xz and zst, or a header that "
                f"is not UTF-8 ({error.reason})."
            ) from error
        except (EOFError, zlib.error, LZMAError, ZstdError, BotoCoreError, OSError) as error:
            raise UserError(
                f"{name}, after record {seen(reader)}: cannot be read to its end ({error}). Is "
                "the file complete? Nothing was queued."
            ) from error

    def _normalised(self, record: Record) -> Record | None:
        """Upper case, without a final ``*``; None if the record is to be skipped."""
        if "\0" in record.header:  # HDF5 could not store it
            raise self._error(record, "has a NUL in its header: the file may be damaged")
        # Bytes know ASCII alone: str.upper() would make SS of a German sharp s.
        residues = record.residues.encode().upper().decode().rstrip("*")
        if not residues:
            raise self._error(record, "has no sequence")
        if not residues.encode(errors="replace").translate(None, KNOWN_BYTES):
            return record._replace(residues=residues)
        if self.unknown == "skip":
            self.skipped += 1
            return None
        if self.unknown == "x":
            self.replaced += 1
            known = [letter if letter in ESM2_LETTERS else "X" for letter in residues]
            return record._replace(residues="".join(known))
        position = next(i for i, letter in enumerate(residues) if letter not in ESM2_LETTERS)
        raise self._error(
            record,
            f"has {record.residues[position]!r} at position {position + 1}, which is no amino acid "
            "that the model knows. Mend it, or give --unknown x (embed it as X) or --unknown "
            "skip (leave such records out)",
        )

    def _count_long(self, records: list[Record]) -> None:
        long = sum(map(self.max_residues.__lt__, map(len, map(RESIDUES, records))))
        self.truncated += long
        if long and self.long == "error":
            record = next(r for r in records if len(r.residues) > self.max_residues)
            raise self._error(
                record,
                f"has {len(record.residues):,} residues, more than the limit of "
                f"{self.max_residues:,} (change it with --max-residues, or give --long truncate)",
            )

    def _error(self, record: Record, what: str) -> UserError:
        number, header = record.row + 1, record.header
        line = self.source.line_of_record(number)
        place = self.source.shown if line is None else f"{self.source.shown}, line {line}"
        shown = header if len(header) <= SHOWN else f"{header[:SHOWN]}…"
        return UserError(f"{place}: record {number} ({shown!r}) {what}.")


def is_plain(records: list[Record]) -> bool:
    """Whether none of these headers and sequences needs a word or a change."""
    sequences = list(map(RESIDUES, records))
    letters = "".join(sequences).encode(errors="replace")
    return (
        all(sequences)
        and not letters.translate(None, KNOWN_BYTES)
        and "\0" not in "".join(map(HEADER, records))
    )


def seen(reader: FastaReader | None) -> int:
    """Records that were read before the reader stopped."""
    return reader.number_of_records if reader else 0
