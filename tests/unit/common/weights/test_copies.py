"""Copies of weights in a folder: complete, or not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import UserError
from common.model_files import model_files
from common.weights.copies import LOCK, RECORD, complete_copy, locked, make_copy

SOURCE = "s3://bucket/model"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{ }"}


def writer(files: dict[str, bytes], calls: list[Path] | None = None) -> Callable[[Path], None]:
    """Return a download that writes some files."""

    def write(folder: Path) -> None:
        if calls is not None:
            calls.append(folder)
        for name, data in files.items():
            (folder / name).write_bytes(data)

    return write


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")
    }


def never(_: Path) -> None:
    pytest.fail("it was downloaded again")


def test_a_copy_is_made_once(tmp_path):
    record = make_copy(tmp_path / "to", SOURCE, "1", writer(FILES))
    assert content(tmp_path / "to") == FILES
    assert make_copy(tmp_path / "to", SOURCE, "1", never) == record
    assert complete_copy(tmp_path / "to", SOURCE) == record
    assert complete_copy(tmp_path / "to", SOURCE, "2") is None
    assert complete_copy(tmp_path / "to", "s3://bucket/other") is None


def test_a_new_version_replaces_the_old_one_and_its_files(tmp_path):
    make_copy(tmp_path, SOURCE, "1", writer({**FILES, "vocab.txt": b"old"}))
    make_copy(tmp_path, SOURCE, "2", writer({**FILES, "model.safetensors": b"new"}))
    assert content(tmp_path) == {**FILES, "model.safetensors": b"new"}
    assert complete_copy(tmp_path, SOURCE, "1") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, RECORD, LOCK])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changed_is_downloaded_again(tmp_path, name):
    make_copy(tmp_path, SOURCE, "1", writer(FILES))
    (tmp_path / name).write_bytes(b"X" * len(FILES[name]))
    assert complete_copy(tmp_path, SOURCE) is None
    make_copy(tmp_path, SOURCE, "1", writer(FILES))
    assert content(tmp_path) == FILES


def test_a_file_that_is_missing_is_downloaded_again(tmp_path):
    make_copy(tmp_path, SOURCE, "1", writer(FILES))
    (tmp_path / "model.safetensors").unlink()
    make_copy(tmp_path, SOURCE, "1", writer(FILES))
    assert content(tmp_path) == FILES


def test_a_download_that_fails_leaves_the_copy_before(tmp_path):
    make_copy(tmp_path, SOURCE, "1", writer(FILES))

    def fail(folder: Path) -> None:
        (folder / "config.json").write_bytes(b"other")
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="the network is gone"):
        make_copy(tmp_path, SOURCE, "2", fail)
    assert content(tmp_path) == FILES
    assert complete_copy(tmp_path, SOURCE, "1") is not None


def test_files_of_somebody_else_are_not_replaced(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(UserError, match=r"has a file model\.safetensors that was not downloaded"):
        make_copy(tmp_path, SOURCE, "1", never)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "esm2.pt").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"has a file esm2\.pt"):
        make_copy(tmp_path, SOURCE, "1", writer({"esm2.pt": b"downloaded"}))
    assert (tmp_path / "esm2.pt").read_bytes() == b"mine"


def test_a_folder_with_another_model_is_not_replaced(tmp_path):
    make_copy(tmp_path, SOURCE, "1", writer(FILES))
    with pytest.raises(UserError, match="has the weights of s3://bucket/model: name another"):
        make_copy(tmp_path, "s3://bucket/other", "1", never)
    assert content(tmp_path) == FILES


KILLED = """
import os, signal, sys, time
from pathlib import Path
from common.weights import copies

moment, folder = sys.argv[1], Path(sys.argv[2])
moves = 0

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write(to):
    (to / "config.json").write_bytes(b"{}")
    if moment == "download":
        die()
    (to / "model.safetensors").write_bytes(b"second")

replace = Path.replace
def replacing(self, target):
    global moves
    moves += 1
    if moment == str(moves):
        die()
    return replace(self, target)

Path.replace = replacing
copies.make_copy(folder, "s3://bucket/model", "2", write)
print("done")
"""


@pytest.mark.parametrize("moment", ["download", "1", "2", "3", "4"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
def test_a_process_that_is_killed_leaves_nothing_that_can_be_loaded_by_half(
    tmp_path, moment, is_first
):
    if not is_first:
        make_copy(tmp_path, SOURCE, "1", writer(FILES))
    command = [sys.executable, "-c", KILLED, moment, str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert complete_copy(tmp_path, SOURCE, "2") is None
    second = {"config.json": b"{}", "model.safetensors": b"second"}
    if moment in ("download", "1"):
        assert content(tmp_path) == ({} if is_first else FILES)
    elif moment in ("2", "3"):
        with pytest.raises(UserError, match=r"no config\.json"):
            model_files(tmp_path)
    else:  # only the record is missing
        assert content(tmp_path) == second
    make_copy(tmp_path, SOURCE, "2", writer(second))
    assert content(tmp_path) == second
    assert not list(tmp_path.glob(".virnucpro-part-*"))


def test_several_processes_download_once(tmp_path):
    code = """
import sys, time
from pathlib import Path
from common.weights.copies import make_copy
def write(to):
    with open(sys.argv[2], "a") as log:
        log.write("x")
    time.sleep(0.3)
    (to / "config.json").write_bytes(b"{}")
make_copy(Path(sys.argv[1]), "s3://bucket/model", "1", write)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "to"), str(tmp_path / "log")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "x"


def test_a_lock_ends_with_its_process(tmp_path):
    code = """
import sys, time
from pathlib import Path
from common.weights.copies import locked
with locked(Path(sys.argv[1])) as alone:
    print(alone, flush=True)
    time.sleep(100)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        os.kill(holder.pid, signal.SIGKILL)
        started = time.monotonic()
        with locked(tmp_path) as alone:
            assert alone
        assert time.monotonic() - started < 60


def test_a_folder_that_cannot_be_made_is_said_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="XDG_CACHE_HOME names the cache, and worker download --to"):
        make_copy(tmp_path / "file" / "to", SOURCE, "1", never)
