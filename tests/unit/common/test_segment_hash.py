"""The hash of a file's segments: that of an independent computation, whatever the reads give."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import segment_hash as module
from common.segment_hash import segment_hash

contents = st.binary(max_size=400)


def expected(content: bytes, segment: int) -> str:
    parts = [content[at : at + segment] for at in range(0, len(content), segment)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        yield file.fileno()


@given(contents, st.integers(1, 90), st.integers(1, 5))
def test_it_is_the_hash_of_the_hashes_of_the_segments(content, segment, threads):
    with TemporaryFile() as file:
        file.write(content)
        file.flush()
        assert segment_hash(file.fileno(), segment, threads) == expected(content, segment)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 64 * 7])
def test_a_file_ends_at_or_beside_the_end_of_a_segment(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    with opened(tmp_path / "file") as file:
        assert segment_hash(file, 64, 3) == expected(content, 64)


def test_segments_are_read_in_pieces_and_reads_may_be_short(tmp_path, monkeypatch):
    content = os.urandom(5000)
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(module, "READ_BYTES", 100)
    preadv, sizes = os.preadv, set()

    def short(file: int, buffers: list[memoryview], at: int) -> int:
        size = preadv(file, [buffers[0][: 1 + at % 70]], at)
        sizes.add(size)
        return size

    monkeypatch.setattr(os, "preadv", short)
    with opened(tmp_path / "file") as file:
        assert segment_hash(file, 1024, 2) == expected(content, 1024)
    assert len(sizes) > 10


def test_the_order_of_segments_counts(tmp_path):
    one, two = os.urandom(64), os.urandom(64)
    hashes = set()
    for content in (one + two, two + one, one + one):
        (tmp_path / "file").write_bytes(content)
        with opened(tmp_path / "file") as file:
            hashes.add(segment_hash(file, 64, 2))
    assert len(hashes) == 3


@pytest.mark.parametrize("change", [b"x" * 100, None], ids=["grows", "shrinks"])
def test_a_file_whose_size_changes_while_it_is_read_is_read_to_its_end(
    tmp_path, monkeypatch, change
):
    path, content = tmp_path / "file", os.urandom(640)
    path.write_bytes(content)
    after = content + change if change else content[:200]
    preadv = os.preadv

    def and_change(file: int, buffers: list[memoryview], at: int) -> int:
        read = preadv(file, buffers, at)
        if at == 0:
            path.write_bytes(after)
        return read

    monkeypatch.setattr(os, "preadv", and_change)
    with opened(path) as file:
        assert segment_hash(file, 64, 1) == expected(after, 64)


def test_an_error_of_a_read_is_raised(tmp_path):
    (tmp_path / "file").write_bytes(b"MKT")
    with (tmp_path / "file").open("ab") as file, pytest.raises(OSError, match="Bad file"):
        segment_hash(file.fileno(), 64, 2)
