"""The liveness file: only a file is touched, never what a link in its place leads to."""

import os

import pytest

from common.errors import UserError
from common.settings import Settings
from workers.cli.start import make_health, require_touchable
from workers.process.liveness import touch


def test_a_file_is_made_and_its_time_is_set(tmp_path):
    file = tmp_path / "live"
    touch(file)
    os.utime(file, (0, 0))
    touch(file)
    assert file.stat().st_mtime > 1e9


@pytest.mark.parametrize("target", ["victim", "none"])
def test_a_link_is_not_followed(tmp_path, target):
    (tmp_path / "victim").write_text("old")
    os.utime(tmp_path / "victim", (0, 0))
    link = tmp_path / "live"
    link.symlink_to(tmp_path / target)
    with pytest.raises(OSError, match="symbolic links"):
        touch(link)
    with pytest.raises(UserError, match="is a link"):
        require_touchable("--liveness-file", "VIRNUCPRO_LIVENESS_FILE", link)
    assert (tmp_path / "victim").stat().st_mtime == 0
    assert not (tmp_path / "none").exists()


def test_a_pipe_does_not_hold_the_supervisor_up(tmp_path):
    os.mkfifo(tmp_path / "live")
    with pytest.raises(OSError, match="No such device"):
        touch(tmp_path / "live")


def test_a_pipe_that_somebody_reads_is_not_touched(tmp_path):
    pipe = tmp_path / "live"
    os.mkfifo(pipe)
    os.utime(pipe, (0, 0))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="Not a file"):
            touch(pipe)
    finally:
        os.close(reader)
    assert pipe.stat().st_mtime == 0


def test_a_folder_as_of_a_variable_that_is_empty_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder: name a file"):
        require_touchable("--liveness-file", "VIRNUCPRO_LIVENESS_FILE", tmp_path)


def test_a_ready_file_that_is_somebodys_is_not_deleted(tmp_path):
    theirs = tmp_path / "notes"
    theirs.write_text("important")
    with pytest.raises(UserError, match="name one of its own"):
        make_health(Settings.read(ready_file=theirs))
    with pytest.raises(UserError, match="name one of its own"):
        make_health(Settings.read(ready_file=tmp_path / "a", liveness_file=tmp_path / "a"))
    assert theirs.read_text() == "important"
