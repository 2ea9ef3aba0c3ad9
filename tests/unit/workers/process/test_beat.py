"""A beat in a file: written where the last one was, never read by halves."""

import errno
import os

from workers.process.beat import BLOCK_BYTES, Beat, block_of, read_beat, write_beat

REFUSED = Beat(alive=False, consumes=False, reason="refused")


def test_a_beat_is_read_as_it_was_written(tmp_path):
    for beat in (Beat(), REFUSED, Beat(reason="\u00e9 \x00 \u2028 \U0001f9ec")):
        write_beat(tmp_path / "beat", beat)
        assert read_beat(tmp_path / "beat") == beat


def test_a_beat_takes_no_more_room_than_the_one_before(tmp_path):
    file, reasons = tmp_path / "beat", ("", "long" * 1000, "\x01" * 5000, "\U0001f9ec" * 5000)
    write_beat(file, Beat())
    first = file.stat()
    for reason in reasons:
        write_beat(file, Beat(reason=reason))
        now = file.stat()
        assert (
            (now.st_ino, now.st_size) == (first.st_ino, first.st_size) == (now.st_ino, BLOCK_BYTES)
        )
        assert list(tmp_path.iterdir()) == [file]
        found = read_beat(file)
        assert found is not None
        assert reason.startswith(found.reason)


def test_half_of_a_beat_is_none(tmp_path):
    file, before, after = tmp_path / "beat", block_of(Beat()), block_of(REFUSED)
    for length in range(0, 100):
        file.write_bytes(after[:length] + before[length:])
        assert read_beat(file) in (None, Beat(), REFUSED)
        file.write_bytes(after[:length])
        assert read_beat(file) in (None, REFUSED)
    assert read_beat(tmp_path / "other") is None


def test_a_disk_without_room_for_a_beat_leaves_a_process_alive_that_says_it_is(
    tmp_path, monkeypatch
):
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "beat"
    write_beat(file, Beat(reason="first"))
    monkeypatch.setattr(os, "pwrite", refuse)
    for beat, written in ((Beat(), True), (REFUSED, False)):
        os.utime(file, (0, 0))
        write_beat(file, beat)
        assert (file.stat().st_mtime > 0) == written
        assert read_beat(file) == Beat(reason="first")
    write_beat(tmp_path / "new", Beat())
    assert (tmp_path / "new").exists()
