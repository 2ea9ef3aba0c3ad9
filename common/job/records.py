"""The input object of a batch: FASTA with the record's row number before its header.

    >17 sp|P69905|HBA_HUMAN Hemoglobin subunit alpha
    MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH...

Since the object has the row numbers, a retry of some of its rows needs nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from os import PathLike
from typing import Any, NamedTuple, Protocol

from common.errors import InputError, UserError


class HasIdAndSeq(Protocol):
    """A record of another library, such as Biopython's ``SeqRecord``."""

    id: Any
    seq: Any


#: Sequences with or without ids, as a program has them.
Sequences = Mapping[Any, Any] | Iterable[str] | Iterable[tuple[Any, str]] | Iterable[HasIdAndSeq]


#: Number of characters of an id or a header that an error message shows.
SHOWN = 60


class Record(NamedTuple):
    """One sequence of the input."""

    row: int  # position in the input, from 0
    header: str  # the whole line after '>'
    residues: str  # upper case, every letter in the alphabet

    @property
    def id(self) -> str:
        """The header's first word, which most tools call the id."""
        return first_word(self.header)


class Columns(NamedTuple):
    """Sequences of the input, by what is known of them."""

    rows: list[int]
    headers: list[str]
    residues: list[str]


def first_word(header: str) -> str:
    words = header.split(maxsplit=1)
    return words[0] if words else ""


def with_ids(sequences: Sequences) -> Iterator[tuple[str, str]]:
    """Return pairs of id and sequence; a sequence without an id has its position, from 0.

    Raises:
        InputError: an item is not a sequence; ``record`` is its position, from 1.
        UserError: it is one text, a path, or cannot be iterated over.
    """
    if isinstance(sequences, str | bytes | PathLike):
        raise UserError(
            "One text is not a list of sequences: pass [sequence]. For a FASTA file there is "
            "Fleet.submit(path)."
        )
    if not isinstance(sequences, Iterable):
        raise UserError(f"{sequences!r} is not a list or a mapping of sequences.")
    items: Iterable[Any] = sequences.items() if isinstance(sequences, Mapping) else sequences
    for row, item in enumerate(items):
        yield with_id(row, item)


def with_id(row: int, item: Any) -> tuple[str, str]:
    """Return the id and the sequence of one item; see ``with_ids``."""
    id_, sequence = item if isinstance(item, tuple | list) and len(item) == 2 else (None, item)
    if hasattr(sequence, "id") and hasattr(sequence, "seq"):
        id_, sequence = sequence.id if id_ is None else id_, sequence.seq
    if type(sequence).__module__.startswith("Bio."):
        with suppress(ValueError):  # Biopython's Seq may have a length, but no letters
            sequence = str(sequence)
    id_ = str(row) if id_ is None else str(id_)
    if not isinstance(sequence, str):
        raise InputError(
            f"Sequence {row + 1} ({id_[:SHOWN]!r}) is not a text, but "
            f"{type(sequence).__name__} {repr(sequence)[:SHOWN]}.",
            record=row + 1,
        )
    try:
        _ = id_.encode(), sequence.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"Sequence {row + 1} has a character that is not Unicode text ({error.reason}).",
            record=row + 1,
        ) from error
    return id_, sequence


def encode_batch(records: Iterable[Record]) -> bytes:
    return "".join([f">{row} {header}\n{residues}\n" for row, header, residues in records]).encode()


def encode_rows(rows: Sequence[int], headers: Sequence[bytes], residues: Sequence[bytes]) -> bytes:
    """Return the same of records whose header and letters are encoded."""
    # One text for all of them: to write each by itself would take twice as long.
    fields = tuple(chain.from_iterable(zip(rows, headers, residues, strict=True)))
    return (b">%d %b\n%b\n" * len(rows)) % fields


def decode_batch(data: bytes) -> list[Record]:
    """Return the records of an input object.

    Raises:
        ValueError: ``encode_batch`` cannot have written it.
    """
    return records_of(decode_columns(data))


def decode_columns(data: bytes) -> Columns:
    """Return the records of an input object; see ``decode_batch``."""
    lines = data.decode().split("\n")
    if len(lines) % 2 == 0 or lines[-1] != "":
        raise ValueError("the object is cut short")
    if b"\0" in data:
        raise ValueError("the object has a NUL")
    heads = [line.removeprefix(">").partition(" ") for line in lines[:-1:2]]
    rows, headers = [int(row) for row, _, _ in heads], [header for _, _, header in heads]
    return Columns(rows, headers, lines[1::2])


def records_of(columns: Columns) -> list[Record]:
    return list(map(Record, *columns))
