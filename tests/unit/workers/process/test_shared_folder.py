"""The folder between a supervisor and its processes, when something removes it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from workers.process import shared_folder
from workers.process.beat import Beat, write_beat
from workers.process.liveness import CHECK_SECONDS, FIRST_HEARTBEAT_SECONDS, LATE_SECONDS
from workers.process.shared_folder import SharedFolder
from workers.process.slot import Slot, make_slots


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[SharedFolder]:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    made = SharedFolder()
    yield made
    made.remove()
    assert not made.path.exists()


@pytest.fixture
def slot(folder) -> Slot:
    """The place of a process that consumes."""
    (slot,) = make_slots([], folder.path)
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    slot.note_start(process)
    slot.ready_file.touch()
    write_beat(slot.liveness.file, Beat())
    slot.check()
    assert slot.ready.holds
    return slot


def check_for(slot: Slot, seconds: float) -> None:
    for _ in range(round(seconds / CHECK_SECONDS)):
        slot.check()


def test_a_folder_that_is_removed_is_made_again_for_this_user_alone_and_said(folder, slot, caplog):
    for _ in range(2):
        shutil.rmtree(folder.path)
        for _ in range(3):
            folder.keep()
        assert folder.path.stat().st_mode & 0o777 == 0o700
        write_beat(slot.liveness.file, Beat())
        slot.check()
        assert slot.ready.holds
    assert len(caplog.messages) == 2
    assert f"{folder.path} was removed" in caplog.messages[0]


def test_no_process_is_to_blame_for_a_folder_that_cannot_be_made_again(folder, slot, caplog):
    above = folder.path.parent
    shutil.rmtree(above)
    for _ in range(3):
        folder.keep()
    (message,) = caplog.messages
    assert "cannot be made again" in message
    check_for(slot, FIRST_HEARTBEAT_SECONDS + 1)
    assert slot.alive.holds
    assert not slot.liveness.is_frozen
    above.mkdir()
    folder.keep()
    check_for(slot, LATE_SECONDS - 1)
    assert slot.alive.holds
    write_beat(slot.liveness.file, Beat())
    slot.check()
    assert slot.ready.holds


def test_files_of_metrics_do_not_look_old(folder, monkeypatch):
    file = folder.metrics / "counter_0.db"
    file.touch()
    os.utime(file, (0, 0))
    folder.keep()
    assert file.stat().st_mtime == 0
    monkeypatch.setattr(shared_folder, "TOUCH_SECONDS", 0.0)
    folder.keep()
    assert file.stat().st_mtime > 0
