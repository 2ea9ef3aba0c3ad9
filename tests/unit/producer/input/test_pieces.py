"""Pieces of an input: together the same blocks, lines and all, as the input read as a whole."""

import gzip
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from producer.input import blocks, formats, pieces
from producer.input.bgzip import PackedRange
from producer.input.blocks import Block, split_records
from producer.input.columns import USUAL_COLUMNS
from producer.input.formats import blocks_of
from producer.input.pieces import Piece, PieceBlocks, Pieces, Range, Text, pieces_of
from producer.input.source import Source
from tests.support.bgzip import END, bgzip

READ_BYTES = 64

lines = st.sampled_from(["MKTAYIAKQR", "M" * 150, "", ";a comment", "  >spaced", "M>K", "é"])
records = st.tuples(st.sampled_from(["a", "b c", "", ">", "é"]), st.lists(lines, max_size=5))
heads = st.sampled_from(["", "", "\n \n", "\n" * 20, "\ufeff"])
texts = st.builds(
    lambda head, found, end: (
        head + "\n".join(">" + "\n".join([header, *rest]) for header, rest in found) + end
    ),
    heads,
    st.lists(records, min_size=1, max_size=60),
    st.sampled_from(["", "\n", "\n\n"]),
)
newlines = st.sampled_from(["\n", "\r\n", "\r"])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4 * READ_BYTES)
    for module in (blocks, formats, pieces):
        monkeypatch.setattr(module, "READ_BYTES", READ_BYTES)


def together(found: list[Piece]) -> list[Block]:
    """Return the blocks of all pieces, each read with the lines that the ones before have."""
    read, lines = [], 0
    for piece in found:
        of_piece = PieceBlocks(piece, lines)
        read += list(of_piece)
        lines = of_piece.lines
    return read


def whole(piece: Piece) -> Piece:
    """Return the piece that would be all of the input, given the first one."""
    assert isinstance(piece, Range)
    return piece._replace(end=None)


@given(texts, newlines)
def test_ranges_of_a_file_have_the_blocks_of_the_whole_file(text, newline):
    with TemporaryDirectory() as folder:
        path = Path(folder, "p.fasta")
        path.write_bytes(text.replace("\n", newline).encode())
        found = list(pieces_of(Source(str(path)), USUAL_COLUMNS))
        assert together(found) == list(PieceBlocks(whole(found[0])))


@given(texts, newlines)
def test_pieces_of_a_packed_file_have_the_blocks_of_the_whole_file(text, newline):
    with TemporaryDirectory() as folder:
        source = Source(str(Path(folder, "p.fasta.gz")))
        Path(source.name).write_bytes(gzip.compress(text.replace("\n", newline).encode()))
        found = list(pieces_of(source, USUAL_COLUMNS))
        assert all(isinstance(piece, Text) for piece in found)
        assert together(found) == list(blocks_of(source, USUAL_COLUMNS))


@given(texts, newlines, st.integers(1, 300))
def test_ranges_of_bgzip_have_the_records_of_the_whole_file(text, newline, block_bytes):
    data = text.replace("\n", newline).encode()
    with TemporaryDirectory() as folder:
        source = Source(str(Path(folder, "p.fasta.gz")))
        Path(source.name).write_bytes(bgzip(data, block_bytes))
        found = list(pieces_of(source, USUAL_COLUMNS))
        assert all(isinstance(piece, PackedRange) for piece in found)
        assert len(found) >= len(data) // (4 * READ_BYTES + block_bytes)
        assert records_of(together(found)) == records_of(list(blocks_of(source, USUAL_COLUMNS)))


@given(texts, st.integers(100, 300))
def test_members_of_gzip_behind_those_of_bgzip_are_read_too(text, block_bytes):
    with TemporaryDirectory() as folder:
        source = Source(str(Path(folder, "p.fasta.gz")))
        packed = bgzip(text.encode(), block_bytes).removesuffix(END)
        Path(source.name).write_bytes(packed + gzip.compress(b"MK\n>z\nMKT\n"))
        found = list(pieces_of(source, USUAL_COLUMNS))
        assert records_of(together(found)) == records_of(list(blocks_of(source, USUAL_COLUMNS)))


def records_of(read: list[Block]) -> list[tuple[str, int]]:
    """Return the text of each record, and its line."""
    found = []
    for block in read:
        pieces = split_records(block.text)
        found += zip(pieces, block.lines(pieces), strict=True)
    return found


def test_a_file_has_as_many_pieces_as_it_is_larger_than_one(tmp_path):
    path = tmp_path / "p.fasta"
    for number in (1, 4, 40):
        path.write_text(">a\nMKTAYIAKQR\n" * 20 * number)
        found = len(list(pieces_of(Source(str(path)), USUAL_COLUMNS)))
        assert found == pytest.approx(path.stat().st_size / pieces.PIECE_BYTES, abs=1)


def test_a_record_that_is_longer_than_a_piece_is_in_one(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\n" + "MKTAY\n" * 1000 + ">b\nMK\n" + ">c\n" + "GAV\n" * 500)
    found = list(pieces_of(Source(str(path)), USUAL_COLUMNS))
    assert len(found) == 2
    assert len(together(found)) == 2


def test_what_was_read_ahead_of_a_stream_is_read_again(tmp_path):
    pipe, text = tmp_path / "pipe", ">a\nMKTAYIAKQR\n" * 200
    os.mkfifo(pipe)
    source = Source(str(pipe))
    for most in (10, 10**9):
        writer = threading.Thread(target=pipe.write_text, args=[text])
        writer.start()
        found = Pieces(source, USUAL_COLUMNS)
        assert found.read_ahead(most) >= min(most, len(text))
        read = list(found.blocks_of(source))
        writer.join()
        assert "\n".join(block.text for block in read) + "\n" == text
        assert [block.line for block in read] == list(lines_of(read))


def lines_of(read: list[Block]) -> Iterator[int]:
    line = 1
    for block in read:
        yield line
        line += block.text.count("\n") + 1


def test_an_error_behind_what_was_read_ahead_comes_after_it(tmp_path):
    source = Source(str(tmp_path / "p.fasta.gz"))
    data = gzip.compress("".join(f">r{i}\nMKTAYIAKQR\n" for i in range(500)).encode())
    Path(source.name).write_bytes(data[:-100])
    found = Pieces(source, USUAL_COLUMNS)
    read: list[Block] = []
    found.read_ahead(10**9)
    with pytest.raises(EOFError):
        deque(map(read.append, found.blocks_of(source)))
    assert len(read) > 100


def test_a_file_that_was_replaced_is_not_read(tmp_path):
    path, other = tmp_path / "p.fasta", tmp_path / "other"
    for each in (path, other):
        each.write_text(">a\nMKT\n")
    (piece,) = pieces_of(Source(str(path)), USUAL_COLUMNS)
    assert len(list(PieceBlocks(piece))) == 1
    other.replace(path)
    with pytest.raises(OSError, match="it was replaced meanwhile"):
        list(PieceBlocks(piece))


def test_a_piece_that_is_not_utf8_is_refused_with_the_line_in_its_file(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_bytes(b">a\nMKTAYIAKQR\n" * 100 + b">b\nM\xff\n")
    found = list(pieces_of(Source(str(path)), USUAL_COLUMNS))
    assert len(found) > 3
    with pytest.raises(InputError, match="line 202: byte 0xff is not text"):
        together(found)
