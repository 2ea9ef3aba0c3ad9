"""Files that killed processes left beside an output."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.job.manifest import write_manifest
from common.job.records import Record
from producer.output.partial import (
    UNLOCKED_SECONDS,
    WITHOUT_LOCKS_SECONDS,
    locked_folder,
    partial_of,
    remove_abandoned,
)
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs, store_shard
from tests.support.stores import folder_store

#: A process that fetches until it is killed, and waits for its next shard.
FETCH = """
import sys, time
from pathlib import Path
from common.job.manifest import read_manifest
from common.store import FileStore
from producer.output.fetch import fetch

def wait(rows):
    print("open", flush=True)
    time.sleep(600)

store = FileStore(Path(sys.argv[1]))
fetch(store, read_manifest(store, sys.argv[2]), Path(sys.argv[3]), on_rows=wait)
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


def test_what_a_killed_fetch_left_is_deleted_by_the_next_but_not_while_it_waits(output, tmp_path):
    store = folder_store(tmp_path / "store")
    manifest = store_inputs(store, manifest_of([1]), [Record(0, "a", "MKTA")])
    write_manifest(store, manifest)
    store_shard(store, manifest, 0)
    command = [sys.executable, "-c", FETCH, store.root, manifest.job, output]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            (path,) = tmp_path.glob(".*.h5.*")
            make_older(path, 2 * WITHOUT_LOCKS_SECONDS)
            assert not cleaned(output)(path)
        finally:
            writer.kill()
    make_older(path, UNLOCKED_SECONDS + 5)
    assert cleaned(output)(path)


def test_a_folder_and_the_second_of_two_files_are_deleted_too(output):
    folder = partial_of(output)
    folder.mkdir()
    (folder / "a.pt").touch()
    second = left(output).with_suffix(f".{'0' * 32}.ids")
    second.touch()
    for path in (folder, second):
        make_older(path, UNLOCKED_SECONDS + 5)
    with locked_folder(partial_of(output)) as being_written:
        make_older(being_written, 2 * WITHOUT_LOCKS_SECONDS)
        cleaned(output)
        assert being_written.is_dir()
    assert not folder.exists()
    assert not second.exists()


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
