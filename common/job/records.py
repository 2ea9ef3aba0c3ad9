"""The input object of a batch: FASTA with the record's row number before its header.

    >17 sp|P69905|HBA_HUMAN Hemoglobin subunit alpha
    MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH...

Since the object has the row numbers, a retry of some of its rows needs nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from common.errors import UserError

#: Sequences with or without ids, as a program has them.
Sequences = Mapping[str, str] | Iterable[str] | Iterable[tuple[str, str]]


class Record(NamedTuple):
    """One sequence of the input."""

    row: int  # position in the input, from 0
    header: str  # the whole line after '>'
    residues: str  # upper case, every letter in the alphabet

    @property
    def id(self) -> str:
        """The header's first word, which most tools call the id."""
        return first_word(self.header)


def first_word(header: str) -> str:
    words = header.split(maxsplit=1)
    return words[0] if words else ""


def with_ids(sequences: Sequences) -> Iterator[tuple[str, str]]:
    """Return pairs of id and sequence; a sequence without an id has its position, from 0.

    Raises:
        UserError: it is one text.
    """
    if isinstance(sequences, str):
        raise UserError("One text is not a list of sequences: pass [sequence].")
    items = cast(
        Iterable[str | tuple[str, str]],
        sequences.items() if isinstance(sequences, Mapping) else sequences,
    )
    for row, item in enumerate(items):
        yield (str(row), item) if isinstance(item, str) else item


def encode_batch(records: Iterable[Record]) -> bytes:
    return "".join([f">{row} {header}\n{residues}\n" for row, header, residues in records]).encode()


def decode_batch(data: bytes) -> list[Record]:
    """Return the records of an input object.

    Raises:
        ValueError: ``encode_batch`` cannot have written it.
    """
    lines = data.decode().split("\n")
    if len(lines) % 2 == 0 or lines[-1] != "":
        raise ValueError("the object is cut short")
    return [
        Record(int(row), header, residues)
        for (row, _, header), residues in zip(
            (line.removeprefix(">").partition(" ") for line in lines[:-1:2]),
            lines[1::2],
            strict=True,
        )
    ]
