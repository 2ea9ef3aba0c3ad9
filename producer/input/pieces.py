"""Pieces of an input, which several processes read: ranges of a file, or what was read of it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from producer.input.bgzip import (
    BEFORE_RECORD,
    PackedRange,
    check_same,
    packed_ranges,
    text_of,
)
from producer.input.blocks import READ_BYTES, Block, Readable, blocks
from producer.input.columns import Columns
from producer.input.formats import blocks_from, blocks_of, is_fasta
from producer.input.source import Source
from producer.input.sources import AnySource

#: Bytes of a piece, about: fewer records would have more of the batches that two pieces share, and
#: more take more memory.
PIECE_BYTES = 64 * READ_BYTES

#: What is read for a file's first piece, in READ_BYTES: its records are looked at again, in order.
FIRST_READS = 8


class Range(NamedTuple):
    """A part of a file of FASTA that is not compressed: whole records."""

    name: str  # of the file in messages
    path: str
    inode: int  # of the file
    start: int
    end: int | None  # None: the end of the file
    first: int  # bytes that are read at first from the file's beginning

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.end is None


class Text(NamedTuple):
    """A part of FASTA that was read: whole records, and the ``>`` of the next one."""

    name: str  # of the file in messages
    data: bytes
    first: int  # bytes that were read at first, or were left from before
    is_last: bool  # then nothing follows the records


class Blocks(NamedTuple):
    """Blocks of records in another format."""

    blocks: list[Block]


Piece = Range | PackedRange | Text | Blocks


class Section:
    """A part of a file, which is read up to the same places as the whole file would be.

    Args:
        file: at the beginning of the part.
        place: where that is.
        end: where the part ends; None: with the file.
        first: bytes that are read at first from the place 0.
    """

    def __init__(self, file: BinaryIO, place: int, end: int | None, first: int) -> None:
        self._file = file
        self._place = place
        self._end = end
        self._first = first

    def read(self) -> bytes:
        """Return all bytes that are left."""
        return self._file.read(-1 if self._end is None else self._end - self._place)

    def read1(self, size: int) -> bytes:
        """Return the bytes up to the next place where reading the whole file would stop."""
        more = size - (self._place - self._first) % size if self._place else self._first
        if self._end is not None:
            more = min(more, self._end - self._place)
        data = self._file.read(more)
        self._place += len(data)
        return data


def pieces_of(source: Source, columns: Columns) -> Iterator[Piece]:
    """Yield the pieces of a source.

    Args:
        columns: of a table.

    Raises:
        InputError: the source is of no format that is read, or damaged.
    """
    with source.open() as file:
        first = file.read1(READ_BYTES)  # type: ignore[attr-defined]
        if not is_fasta(first, source, columns):
            yield from grouped(blocks_from(first, file, source, columns))
        elif source.is_s3 or source.is_stream:
            yield from texts_of(first, cast(Readable, file), source.shown)
        elif isinstance(file, BufferedReader):
            yield from ranges_of(len(first), file, source)
        else:
            found = packed_ranges(source.shown, source.name, PIECE_BYTES)
            begin = next(found, None)
            if begin is None:
                yield from texts_of(first, cast(Readable, file), source.shown)
            else:
                yield from chain([begin], found)


def ranges_of(first: int, file: BufferedReader, source: Source) -> Iterator[Range]:
    """Yield the ranges of a file that is not compressed, each of which ends where a block does.

    Args:
        first: bytes that are read at first.
    """
    status = os.fstat(file.fileno())
    about = source.shown, source.name, status.st_ino
    start, target = 0, first + min(FIRST_READS * READ_BYTES, PIECE_BYTES)
    while target < status.st_size:
        begin = max(target - READ_BYTES - 1, start)
        file.seek(begin)
        found = last_end(file.read(target - begin))
        if found < 0:  # one record is longer than what is read at once
            target += READ_BYTES
            continue
        end = begin + found
        yield Range(*about, start, end, first)
        start, target = end, target + PIECE_BYTES
    yield Range(*about, start, None, first)


def texts_of(data: bytes, file: Readable, name: str) -> Iterator[Text]:
    """Yield the pieces of a file that is read here, each of which ends where a block does.

    Args:
        data: what was read of it already.
    """
    parts, letters, first, end = [data], len(data), len(data), last_end(data)
    try:
        while data := file.read1(READ_BYTES):
            # The end of a line may be the last of what was read before.
            found = last_end(parts[-1][-1:] + data)
            if found >= 0:
                end = letters + found - 1
            parts.append(data)
            letters += len(data)
            if letters >= PIECE_BYTES and found >= 0:
                whole = b"".join(parts)
                yield Text(name, whole[:end] + b">", first, is_last=False)
                parts, letters, first, end = [whole[end:]], letters - end, letters - end, -1
    except Exception:
        if end >= 0:
            yield Text(name, b"".join(parts)[:end] + b">", first, is_last=False)
        raise
    yield Text(name, b"".join(parts), first, is_last=True)


def last_end(data: bytes) -> int:
    """Return the place of the last ``>`` that begins a record; a negative number if none does."""
    return max(map(data.rfind, BEFORE_RECORD)) + 1 or -1


def grouped(found: Iterable[Block]) -> Iterator[Blocks]:
    """Yield blocks in groups about as large as a piece; those before an error, too."""
    group: list[Block] = []
    letters = 0
    try:
        for block in found:
            group.append(block)
            letters += len(block.text)
            if letters >= PIECE_BYTES:
                yield Blocks(group)
                group, letters = [], 0
    except Exception:
        yield Blocks(group)
        raise
    yield Blocks(group)


class PieceBlocks:
    """The blocks of a piece, the same as if all were read together.

    Args:
        piece: a part of a source.
        lines: of the source before it; after the last block, those before the next piece.

    Raises:
        InputError: it is not UTF-8, or does not begin with a record.
        OSError: the file cannot be read.
    """

    def __init__(self, piece: Piece, lines: int = 0) -> None:
        self._piece = piece
        self.lines = lines

    def __iter__(self) -> Iterator[Block]:
        """Yield them. Where the last one ends depends on the ``>`` after it, which is no record."""
        piece = self._piece
        if isinstance(piece, Blocks):
            yield from piece.blocks
            return
        with opened(piece) as file:
            last: Block | None = None
            for block in blocks(file, piece.name, self.lines):
                if last is not None:
                    yield last
                last = block
        if last is not None:
            self.lines = last.line - 1
            if piece.is_last:
                yield last


@contextmanager
def opened(piece: Range | PackedRange | Text) -> Iterator[Section]:
    """Yield a piece as a file."""
    if isinstance(piece, Text):
        yield Section(BytesIO(piece.data), 0, None, piece.first)
        return
    if isinstance(piece, PackedRange):
        yield Section(BytesIO(text_of(piece)), 0, None, READ_BYTES)
        return
    with Path(piece.path).open("rb") as file:
        check_same(file, piece.inode)
        file.seek(piece.start)
        end = None if piece.end is None else piece.end + 1
        yield Section(file, piece.start, end, piece.first)


def bytes_of(piece: Piece) -> int:
    """Return about how many bytes of FASTA were read for a piece."""
    if isinstance(piece, Blocks):
        return sum(len(block.text) for block in piece.blocks)
    return len(piece.data) if isinstance(piece, Text) else 0


class Pieces:
    """The pieces of an input's sources, of which the first, perhaps a stream, can be read ahead."""

    def __init__(self, source: AnySource, columns: Columns) -> None:
        self._first = source.parts[0]
        self._columns = columns
        self._rest: Iterator[Piece] | None = None
        self._read: list[Piece] = []

    def of(self, part: Source) -> Iterator[Piece]:
        """Return the pieces of a source."""
        if part is self._first and self._rest is not None:
            return chain(self._read, self._rest)
        return pieces_of(part, self._columns)

    def blocks_of(self, part: Source) -> Iterator[Block]:
        """Yield the blocks of a source."""
        if part is not self._first or self._rest is None:
            yield from blocks_of(part, self._columns)
            return
        lines = 0
        for piece in self.of(part):
            found = PieceBlocks(piece, lines)
            yield from found
            lines = found.lines

    def read_ahead(self, most: int) -> int:
        """Read the beginning of the first source; return the bytes, about: ``most``, or all.

        An error is raised later, where it belongs.
        """
        rest, letters = pieces_of(self._first, self._columns), 0
        try:
            while letters < most and (piece := next(rest, None)):
                self._read.append(piece)
                letters += bytes_of(piece)
        except Exception as error:
            rest = raising(error)
        self._rest = rest
        return letters


def raising(error: Exception) -> Iterator[Piece]:
    """Raise an error where the first piece would be."""
    raise error
    yield
