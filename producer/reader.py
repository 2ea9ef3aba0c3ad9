"""FASTA to checked records, one after another, in memory that does not grow with the input."""

import sys
import zlib
from collections.abc import Iterable, Iterator
from lzma import LZMAError
from typing import Literal, cast

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
        row = -1
        for row, (header, letters) in enumerate(self._parsed()):
            if "\0" in header:  # HDF5 could not store it
                raise self._error(row, header, "has a NUL in its header: the file may be damaged")
            residues = letters
            # Nearly every record is upper case and known throughout: that is all it costs then.
            if not letters or letters.encode(errors="replace").translate(None, KNOWN_BYTES):
                residues = self._normalised(row, header, letters)
                if residues == "":
                    self.skipped += 1
                    continue
            if len(residues) > self.max_residues:
                self._count_long(row, header, len(residues))
            self._ids.add(first_word(header))
            yield Record(row, header, residues)
        if row == -1:
            raise UserError(f"{self.source.shown} is empty: there is no FASTA record in it.")
        if self.skipped == row + 1:
            raise UserError(f"{self.source.shown}: all {row + 1} records were skipped.")

    def duplicate_ids(self) -> int:
        """How many records so far have the id of an earlier one."""
        return self._ids.duplicates()

    def _parsed(self) -> Iterator[tuple[str, str]]:
        """Headers and sequences as they stand in the file."""
        name, seen = self.source.shown, 0
        try:
            with self.source.open() as file:
                reader = FastaReader(file, sequence_class=as_pair)
                pairs = cast(Iterable[tuple[str, str]], reader)
                for pair in pairs:
                    yield pair
                    seen += 1
        except FileFormatError as error:
            line = "" if error.line is None else f", line {error.line + 1}"
            raise UserError(f"{name}{line}: not FASTA. {error.message}") from error
        except UnicodeDecodeError as error:
            found = self.source.line_beyond_utf8()
            place = f"after record {seen}" if found is None else f"line {found}"
            raise UserError(
                f"{name}, {place}: neither FASTA nor one of gz, bz2, xz and zst, or a header that "
                f"is not UTF-8 ({error.reason})."
            ) from error
        except (EOFError, zlib.error, LZMAError, ZstdError, OSError) as error:
            raise UserError(
                f"{name}, after record {seen}: cannot be read to its end ({error}). Is the file "
                "complete? Nothing was queued."
            ) from error

    def _normalised(self, row: int, header: str, letters: str) -> str:
        """Upper case, without a final ``*``; nothing if the record is to be skipped."""
        # Bytes know ASCII alone: str.upper() would make SS of a German sharp s.
        residues = letters.encode().upper().decode().rstrip("*")
        if not residues:
            raise self._error(row, header, "has no sequence")
        if not residues.encode(errors="replace").translate(None, KNOWN_BYTES):
            return residues
        if self.unknown == "skip":
            return ""
        if self.unknown == "x":
            self.replaced += 1
            return "".join([letter if letter in ESM2_LETTERS else "X" for letter in residues])
        position = next(i for i, letter in enumerate(residues) if letter not in ESM2_LETTERS)
        raise self._error(
            row,
            header,
            f"has {letters[position]!r} at position {position + 1}, which is no amino acid "
            "that the model knows. Mend it, or give --unknown x (embed it as X) or --unknown "
            "skip (leave such records out)",
        )

    def _count_long(self, row: int, header: str, length: int) -> None:
        if self.long == "error":
            raise self._error(
                row,
                header,
                f"has {length:,} residues, more than the limit of {self.max_residues:,} (change "
                "it with --max-residues, or give --long truncate)",
            )
        self.truncated += 1

    def _error(self, row: int, header: str, what: str) -> UserError:
        line = self.source.line_of_record(row + 1)
        place = self.source.shown if line is None else f"{self.source.shown}, line {line}"
        shown = header if len(header) <= SHOWN else f"{header[:SHOWN]}…"
        return UserError(f"{place}: record {row + 1} ({shown!r}) {what}.")


def as_pair(name: str, sequence: str, _qualities: None) -> tuple[str, str]:
    """What dnaio makes of a record: its own class would refuse headers beyond ASCII."""
    return name, sequence
