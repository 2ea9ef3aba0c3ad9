"""The good records of a piece as bytes, many of which are read together.

Nearly all records are letters alone. Of these the lines of many are found at once, and nothing is
done for each of them but to cut out its header and letters, and to hash them: that takes half the
time of the reader. It has the others, and what is counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from common.alphabet import PROTEIN
from common.job.cleaning import AMINO_ACIDS_ONLY
from producer.input.blocks import Block
from producer.input.identical import Array
from producer.input.pieces import Blocks, Piece, PieceBlocks, opened
from producer.input.reader import Reader

#: Bytes that are looked at together: fewer would take longer, and more do not fit into the cache.
#: Where anything is unusual, fewer are looked at again, and the reader has those that it is among.
CHUNK_BYTES = 1 << 19, 1 << 16, 1 << 13

#: The first sign that may be in a header, the end of a line, and the begin of a record.
BLANK, NEWLINE, BEGIN = map(ord, " \n>")

#: What is written between headers and letters: a sign that neither has.
BORDER, BORDER_SIGN = 0, b"\0"

#: One of AMINO_ACIDS_ONLY that most proteins have, and all of them.
COMMON, FOR_PROTEINS = ord("L"), frozenset("".join(AMINO_ACIDS_ONLY).encode())


class Packed(NamedTuple):
    """Some records as bytes."""

    rows: Array
    headers: list[bytes]
    sequences: list[bytes]
    header_letters: Array
    letters: Array


EMPTY: Array = np.empty(0, np.int64)
NO_RECORDS = Packed(EMPTY, [], [], EMPTY, EMPTY)


def joined(parts: Iterable[Packed]) -> Packed:
    """Return records that follow each other as one."""
    rows, headers, sequences, header_letters, letters = zip(NO_RECORDS, *parts, strict=True)
    return Packed(
        np.concatenate(rows),
        list(chain.from_iterable(headers)),
        list(chain.from_iterable(sequences)),
        np.concatenate(header_letters),
        np.concatenate(letters),
    )


class Lines(NamedTuple):
    """Some records, the letters of each one's header and sequence, and the lines of all."""

    headers: list[bytes]
    sequences: list[bytes]
    header_letters: Array
    letters: Array
    lines: int


def read_packed(piece: Piece, reader: Reader) -> tuple[list[Packed], int]:
    """Read a piece; the reader counts everything.

    Returns:
        The good records; the lines before the next piece.

    Raises:
        InputError: the piece cannot be read.
        OSError: the same.
        UnicodeDecodeError: the same.
    """
    data = b"" if isinstance(piece, Blocks) else data_of(piece)
    if not data.startswith(b">"):
        blocks = PieceBlocks(piece)
        return [checked(block, reader) for block in blocks], blocks.lines
    found, lines = [], 0
    for packed, more in read_chunks(data, reader, 0, CHUNK_BYTES):
        found.append(packed)
        lines += more
    return found, lines


def data_of(piece: Piece) -> bytes:
    """Return a piece's bytes, without the end of the last line and the ``>`` of the next record."""
    assert not isinstance(piece, Blocks)
    with opened(piece) as file:
        data = file.read()
    end = len(data) if piece.is_last else len(data) - 1
    return data[: end - data.endswith(b"\n", 0, end)]


def read_chunks(
    data: bytes, reader: Reader, lines: int, sizes: Sequence[int]
) -> Iterator[tuple[Packed, int]]:
    """Yield the good records of whole records, many at once, and the number of their lines.

    Args:
        data: without the end of the last line.
        lines: before them.
        sizes: bytes that are looked at together; the next ones if anything is unusual among them.
    """
    for chunk in chunks(data, sizes[0]):
        text = lines_of(chunk)
        packed = None if text is None else plain(text, reader)
        if text is not None and packed is not None:
            found = [(packed, text.lines)]
        elif len(sizes) > 1:
            found = list(read_chunks(chunk, reader, lines, sizes[1:]))
        else:
            block = Block(as_text(chunk), lines + 1)
            found = [(checked(block, reader), block.text.count("\n") + 1)]
        yield from found
        lines += sum(more for _, more in found)


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    """Yield whole records, without the end of the line after them."""
    bounds = [-1]
    while bounds[-1] + size < len(data):
        after = bounds[-1] + 1
        end = data.rfind(b"\n>", after, after + size)
        end = end if end >= 0 else data.find(b"\n>", after + size - 1)
        if end < 0:
            break
        bounds.append(end)
    for before, end in pairwise([*bounds, len(data)]):
        yield data[before + 1 : end]


def as_text(chunk: bytes) -> str:
    r"""Return a chunk as a block has it, with ``\n`` for every kind of newline."""
    text = chunk.decode().replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n") if chunk.endswith(b"\r") else text


def checked(block: Block, reader: Reader) -> Packed:
    """Return the good records of a block, each of which the reader has checked."""
    records = reader.checked(block)
    rows, headers, sequences = zip(*records, strict=True) if records else ((), (), ())
    return Packed(
        np.array(rows, np.int64),
        list(map(str.encode, headers)),
        list(map(str.encode, sequences)),
        lengths(headers),
        lengths(sequences),
    )


def lengths(texts: Sequence[str] | Sequence[bytes]) -> Array:
    """Return the length of each text."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


def lines_of(chunk: bytes) -> Lines | None:
    """Return the lines of records; None if there is anything in headers that may have to change."""
    if b"\r" in chunk:
        chunk = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n")
    signs = np.frombuffer(bytearray(chunk + b"\n"), np.uint8)
    ends = np.flatnonzero(signs < BLANK)
    if not chunk.isascii() or (signs[ends] != NEWLINE).any():
        return None
    starts = np.concatenate(([0], ends[:-1] + 1))
    heads = np.flatnonzero(signs[starts] == BEGIN)  # the lines of headers
    if (signs[ends[heads] - 1] == BLANK).any():
        return None
    signs[starts[heads]] = signs[ends[heads]] = BORDER
    _, *texts = signs.tobytes().replace(b"\n", b"").split(BORDER_SIGN)
    # The place of a sign without newlines is less by the lines before it.
    begins, middles = starts[heads] - heads, ends[heads] - heads
    letters = np.append(begins[1:], len(signs) - len(ends)) - middles
    return Lines(texts[::2], texts[1::2], middles - begins - 1, letters, len(ends))


def plain(text: Lines, reader: Reader) -> Packed | None:
    """Return records that are but letters and final stops; None if some are not.

    What the reader does with such records in any case, is done here for all together.
    """
    sequences, letters = text.sequences, text.letters
    strange = strange_letters(sequences, reader.plain)
    if strange and not strange.translate(None, reader.easy):
        sequences = [each.upper().rstrip(b"*") for each in sequences]
        letters = lengths(sequences)
        strange = strange_letters(sequences, reader.plain)
    long = int((letters > reader.max_residues).sum())
    if strange or letters.min() < max(1, reader.min_length) or (long and reader.long == "error"):
        return None
    if reader.alphabet is PROTEIN:
        doubtful = [each for each in sequences if COMMON not in each]
        if any(map(FOR_PROTEINS.isdisjoint, doubtful)):
            return None
    reader.ids.add_encoded(first_words(text.headers))
    rows = np.arange(reader.read, reader.read + len(sequences))
    reader.read += len(sequences)
    reader.long_records += long
    return Packed(rows, text.headers, sequences, text.header_letters, letters)


def strange_letters(sequences: list[bytes], plain: bytes) -> bytes:
    """Return all signs of some sequences that are not plain letters."""
    letters = b"".join(sequences)
    return b"" if has_only(letters, plain) else letters.translate(None, plain)


def has_only(letters: bytes, plain: bytes) -> bool:
    """Return whether all letters are plain; to look for others one by one takes less time."""
    first, last = min(plain), max(plain)
    signs = np.frombuffer(letters, np.uint8)
    if signs.min(initial=last) < first or signs.max(initial=first) > last:
        return False
    between = set(range(first, last)) - set(plain)
    return not any(map(letters.__contains__, between))


def first_words(headers: list[bytes]) -> list[bytes]:
    """Return the ids of headers, whose only white space are blanks."""
    words = [header.partition(b" ")[0] for header in headers]
    if all(words):
        return words
    return [header.strip().partition(b" ")[0] for header in headers]
