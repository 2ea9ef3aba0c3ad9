"""The hash of an input's content: small files, and those of earlier versions, keep theirs."""

import gzip
import hashlib
import io
import os
import threading
from pathlib import Path

import pytest

from common import segment_hash
from producer.input import content_hash as module
from producer.input import sources
from producer.input.content_hash import content_hash
from producer.input.source import Source
from producer.input.sources import Sources

LARGE, SEGMENT = 1000, 64


def plain(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def segmented(content: bytes, segment: int = SEGMENT) -> str:
    parts = [content[at : at + segment] for at in range(0, len(content), segment)]
    return plain(b"".join(hashlib.sha256(part).digest() for part in parts))


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return content_hash(file, large=LARGE, segment=SEGMENT)


@pytest.fixture
def small_limits(monkeypatch):
    """Take files of ``LARGE`` bytes for large ones."""
    defaults = {"large": LARGE, "segment": SEGMENT}
    monkeypatch.setattr(module.content_hash, "__kwdefaults__", defaults)
    monkeypatch.setattr(sources, "LARGE_BYTES", LARGE)


def test_jobs_have_the_same_names_for_ever():
    """Names of jobs in stores follow from these."""
    assert (module.LARGE_BYTES, module.SEGMENT_BYTES) == (2**30, 2**26)


@pytest.mark.parametrize("size", [0, 1, LARGE - 1])
def test_a_small_file_has_the_hash_of_its_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a.fa").write_bytes(content)
    assert hash_of(tmp_path / "a.fa") == plain(content)


@pytest.mark.parametrize("size", [LARGE, LARGE + 1, SEGMENT * 16, SEGMENT * 16 + 1])
def test_a_large_file_has_the_hash_of_its_segments(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a.fa").write_bytes(content)
    assert hash_of(tmp_path / "a.fa") == segmented(content)


def test_a_pipe_has_the_hash_of_its_bytes():
    content = os.urandom(2 * LARGE)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as file, os.fdopen(write, "wb") as out:
        out.write(content)
        out.close()
        assert content_hash(file, large=LARGE, segment=SEGMENT) == plain(content)


def test_a_compressed_file_is_hashed_as_it_is(tmp_path, small_limits):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(os.urandom(2 * LARGE)))
    assert Source(str(path)).fingerprint == segmented(path.read_bytes())


@pytest.mark.parametrize("cpus", [0.5, 3.0, 64.0])
def test_the_number_of_cpus_does_not_change_it(tmp_path, small_limits, monkeypatch, cpus):
    monkeypatch.setattr(segment_hash, "usable_cpus", lambda: cpus)
    content = os.urandom(5 * LARGE)
    (tmp_path / "a.fa").write_bytes(content)
    assert Source(str(tmp_path / "a.fa")).fingerprint == segmented(content)


def test_several_files_are_one_input_with_the_hash_that_they_had(tmp_path, small_limits):
    """Each has the fingerprint that it has alone, under its name and in its place."""
    parts = []
    for number, size in enumerate([10, 2 * LARGE, 20, LARGE, 10]):
        path = tmp_path / f"{number}.fa"
        path.write_bytes(os.urandom(size))
        parts.append(Source(str(path)))
    named = [
        [part.name, (plain if len(content) < LARGE else segmented)(content)]
        for part in parts
        for content in [Path(part.name).read_bytes()]
    ]
    text = "[" + ", ".join(f'["{name}", "{found}"]' for name, found in named) + "]"
    assert Sources(tuple(parts)).fingerprint == plain(text.encode())


def test_several_small_files_are_hashed_at_the_same_time(tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=60)

    def wait(file: io.BufferedReader) -> str:
        both.wait()
        return file.name

    monkeypatch.setattr("producer.input.source.content_hash", wait)
    monkeypatch.setattr(segment_hash, "usable_cpus", lambda: 2.0)
    for name in ("a.fa", "b.fa"):
        (tmp_path / name).write_text(">a\nMKT\n")
    parts = tuple(Source(str(tmp_path / name)) for name in ("a.fa", "b.fa"))
    assert len(Sources(parts).fingerprint) == 64
