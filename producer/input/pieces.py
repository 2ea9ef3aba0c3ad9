"""Pieces of an input, which several processes read: ranges of a file, or blocks that were read."""

import os
from collections.abc import Callable, Iterator
from io import SEEK_SET
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from producer.input.blocks import READ_BYTES, Block, blocks
from producer.input.columns import Columns
from producer.input.formats import is_plain_fasta
from producer.input.source import Source

#: Bytes of a piece, about: fewer records would have more of the batches that two pieces share, and
#: more take more memory.
PIECE_BYTES = 64 * READ_BYTES

#: The ends of lines before a record.
BEFORE_RECORD = (b"\n>", b"\r>")


class Range(NamedTuple):
    """A part of a file of plain FASTA: whole records, as they are in it."""

    path: str
    inode: int  # of the file
    name: str  # of the file in messages
    start: int
    end: int | None  # None: the end of the file
    first: int  # bytes that are read at first from the file's beginning


class Blocks(NamedTuple):
    """Blocks that were read already."""

    blocks: list[Block]


Piece = Range | Blocks


class Section:
    """A part of a file, which is read up to the same places as the whole file would be.

    If more follows, the ``>`` of the next record is read as well: where a block ends depends on it.
    """

    def __init__(self, file: BinaryIO, piece: Range) -> None:
        file.seek(piece.start, SEEK_SET)
        self._file = file
        self._place = piece.start
        self._end = None if piece.end is None else piece.end + 1
        self._first = piece.first

    def read1(self, size: int) -> bytes:
        """Return the bytes up to the next place where reading the whole file would stop."""
        more = size - (self._place - self._first) % size if self._place else self._first
        if self._end is not None:
            more = min(more, self._end - self._place)
        data = self._file.read(more)
        self._place += len(data)
        return data


def pieces_of(
    source: Source, columns: Columns, blocks_of: Callable[[Source], Iterator[Block]]
) -> Iterator[Piece]:
    """Yield the pieces of a source.

    Args:
        columns: of a table.
        blocks_of: reads the blocks of a source whose pieces cannot be found without reading it.

    Raises:
        InputError: the source is of no format that is read, or damaged.
    """
    if (first := is_plain_fasta(source, columns)) is not None:
        yield from ranges_of(source, first)
    else:
        yield from grouped(blocks_of(source))


def ranges_of(source: Source, first: int) -> Iterator[Range]:
    """Yield the ranges of a file of plain FASTA, each of which ends where a block does.

    Args:
        first: bytes that are read at first.
    """
    path = Path(source.name)
    start, target = 0, first + PIECE_BYTES
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        size, about = status.st_size, (source.name, status.st_ino, source.shown)
        while target < size:
            begin = max(target - READ_BYTES - 1, start)
            file.seek(begin)
            found = max(map(file.read(target - begin).rfind, BEFORE_RECORD))
            if found < 0:  # one record is longer than what is read at once
                target += READ_BYTES
                continue
            end = begin + found + 1
            yield Range(*about, start, end, first)
            start, target = end, target + PIECE_BYTES
        yield Range(*about, start, None, first)


def grouped(found: Iterator[Block]) -> Iterator[Blocks]:
    """Yield blocks in groups about as large as a piece."""
    group: list[Block] = []
    letters = 0
    for block in found:
        group.append(block)
        letters += len(block.text)
        if letters >= PIECE_BYTES:
            yield Blocks(group)
            group, letters = [], 0
    if group:
        yield Blocks(group)


def blocks_in(piece: Piece, lines: int = 0) -> Iterator[Block]:
    """Yield the blocks of a piece, the same as if all were read together.

    Args:
        lines: of the file before a range.

    Raises:
        InputError: it is not UTF-8, or does not begin with a record.
        OSError: the file cannot be read.
    """
    if isinstance(piece, Blocks):
        yield from piece.blocks
        return
    with Path(piece.path).open("rb") as file:
        if os.fstat(file.fileno()).st_ino != piece.inode:
            raise OSError("it was replaced meanwhile")
        found = blocks(Section(file, piece), piece.name, lines)
        if piece.end is None:
            yield from found
        else:  # the last one is only the > of the next record
            yield from (block for block, _ in pairwise(found))


def next_line(block: Block) -> int:
    """Return the line after a block of lines."""
    return block.line + block.text.count("\n") + 1
