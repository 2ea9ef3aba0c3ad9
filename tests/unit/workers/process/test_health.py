"""The health of a worker, as probes see it: two files, and an object for HTTP."""

import os

from workers.process import health as module
from workers.process.health import Health, Verdict

YES, NO = Verdict(True, "well"), Verdict(False, "why not")


def test_a_worker_starts_alive_and_not_ready():
    health = Health()
    assert (health.alive, health.ready, health.ready_reason) == (True, False, "starting")


def test_the_liveness_file_is_touched_while_the_worker_is_alive(tmp_path):
    health = Health(liveness_file=tmp_path / "alive")
    health.update(YES, NO)
    os.utime(tmp_path / "alive", (0, 0))
    health.update(NO, NO)
    assert (tmp_path / "alive").stat().st_mtime == 0
    assert (health.alive, health.alive_reason) == (False, "why not")
    health.update(YES, NO)
    assert (tmp_path / "alive").stat().st_mtime > 1e9


def test_the_ready_file_exists_only_while_the_worker_is_ready(tmp_path):
    ready = tmp_path / "ready"
    ready.touch()  # of a worker that was killed
    health = Health(ready_file=ready)
    health.update(YES, NO)
    assert not ready.exists()
    health.update(YES, YES)
    assert (ready.exists(), health.ready) == (True, True)
    health.update(NO, NO)
    assert not ready.exists()


def test_a_worker_that_ends_is_not_ready_whatever_is_found_of_it_later(tmp_path):
    health = Health(ready_file=tmp_path / "ready")
    health.update(YES, YES)
    health.end()
    health.update(YES, YES)
    assert not (tmp_path / "ready").exists()
    assert (health.alive, health.ready, health.ready_reason) == (True, False, "the worker ends")


def test_a_supervisor_that_hangs_is_neither_alive_nor_ready(monkeypatch):
    health = Health()
    health.update(YES, YES)
    assert health.alive
    monkeypatch.setattr(module, "UPDATE_SECONDS", -1.0)
    assert (health.alive, health.ready) == (False, False)
    assert health.alive_reason.startswith("no process was checked for")


def test_a_file_that_cannot_be_written_does_not_end_the_worker(tmp_path):
    Health(tmp_path / "gone" / "alive", tmp_path / "gone" / "ready").update(YES, YES)
