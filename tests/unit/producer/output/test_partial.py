"""Files that killed processes left beside an output."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from producer.output.partial import (
    UNLOCKED_SECONDS,
    WITHOUT_LOCKS_SECONDS,
    partial_of,
    remove_abandoned,
)

#: A process that writes an HDF5 file until it is killed.
WRITE = """
import sys, time, h5py
file = h5py.File(sys.argv[1], "w")
print("open", flush=True)
time.sleep(600)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "e [1].h5"


def left(output: Path, age: float = UNLOCKED_SECONDS + 5) -> Path:
    path = partial_of(output)
    path.write_bytes(b"half")
    make_older(path, age)
    return path


def make_older(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def cleaned(output: Path) -> Callable[[Path], bool]:
    own = partial_of(output)
    own.touch()
    remove_abandoned(output, own)
    assert own.exists()
    own.unlink()
    return lambda path: not path.exists()


def test_what_a_killed_fetch_left_is_deleted_by_the_next_but_not_while_it_writes(output):
    path = partial_of(output)
    with subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            make_older(path, 2 * WITHOUT_LOCKS_SECONDS)
            assert not cleaned(output)(path)
        finally:
            writer.kill()
    make_older(path, UNLOCKED_SECONDS + 5)
    assert cleaned(output)(path)


def test_one_that_is_being_renamed_stays(output):
    path = left(output, age=1)
    assert not cleaned(output)(path)


def test_without_locks_only_the_age_counts(output, monkeypatch):
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    young, old = left(output), left(output, age=WITHOUT_LOCKS_SECONDS + 5)
    assert cleaned(output)(old)
    assert young.exists()


def test_other_files_stay(output):
    of_another = left(output.with_name("other.h5"))
    by_hand = output.with_name(f".{output.name}.backup")
    by_hand.touch()
    make_older(by_hand, 2 * WITHOUT_LOCKS_SECONDS)
    cleaned(output)
    assert of_another.exists()
    assert by_hand.exists()
