"""The place of a process: between crashes it is alive, unless the crashes repeat."""

import subprocess
import sys
from pathlib import Path

import pytest

from workers.process.beat import Beat, write_beat
from workers.process.exit_codes import EXIT_USER_ERROR
from workers.process.liveness import CHECK_SECONDS, Liveness
from workers.process.slot import HEALTHY_SECONDS, LONGEST_PAUSE, MAX_ENDS, PROVEN_SECONDS, Slot

CRASH = 1


@pytest.fixture
def slot(tmp_path) -> Slot:
    return Slot("0", tmp_path / "ready", Liveness(tmp_path / "heartbeat"))


@pytest.fixture(scope="module")
def ended() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process


def start(slot: Slot, process: "subprocess.Popen[bytes]", now: float) -> None:
    slot.liveness.reset()
    slot.ready_file.unlink(missing_ok=True)
    slot.note_start(process, now)


def consume_for(slot: Slot, seconds: float) -> None:
    slot.ready_file.touch()
    for _ in range(round(seconds / CHECK_SECONDS)):
        write_beat(slot.liveness.file, Beat())
        slot.check()


def crash(slot: Slot, process, *, after: float = 6.0, code: int = CRASH) -> None:
    start(slot, process, now=0.0)
    consume_for(slot, min(after, PROVEN_SECONDS - 1))
    slot.note_end(code, now=after)


def test_a_process_that_crashed_is_about_to_be_started_again_and_so_alive(slot, ended):
    crash(slot, ended)
    assert slot.alive == (True, "the worker on GPU 0 is started again soon")
    assert slot.ready == (False, "the worker on GPU 0 is not running")
    start(slot, ended, 10.0)
    assert slot.alive.holds


def test_a_place_whose_processes_crash_again_and_again_is_not_alive_until_one_has_run_well(
    slot, ended
):
    for _ in range(MAX_ENDS):
        assert slot.alive.holds
        crash(slot, ended)
    assert slot.alive == (False, f"the worker on GPU 0 ended {MAX_ENDS} times in a row")
    start(slot, ended, 0.0)
    assert not slot.alive.holds  # it loads its model
    consume_for(slot, PROVEN_SECONDS - 2)
    assert (slot.alive.holds, slot.ready.holds) == (False, True)
    consume_for(slot, 3)
    assert slot.alive.holds
    slot.note_end(CRASH, now=50.0)
    assert not slot.alive.holds  # the row goes on


def test_a_process_that_lived_for_long_ends_a_row_of_crashes(slot, ended):
    for _ in range(MAX_ENDS - 1):
        crash(slot, ended)
    assert slot.pause == 2 ** (MAX_ENDS - 2)
    crash(slot, ended, after=HEALTHY_SECONDS + 1)
    assert (slot.alive.holds, slot.ends, slot.pause) == (True, 1, 1)


def test_an_error_that_only_the_user_can_correct_is_no_matter_of_time(slot, ended):
    crash(slot, ended, code=EXIT_USER_ERROR)
    assert not slot.alive.holds
    assert "only the user can correct" in slot.alive.reason


def test_pauses_grow_up_to_the_longest(slot, ended):
    pauses = []
    for _ in range(8):
        crash(slot, ended)
        pauses.append(slot.pause)
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_place_is_ready_while_its_process_has_loaded_and_consumes(slot, ended):
    start(slot, ended, 0.0)
    assert slot.ready == (False, "the worker on GPU 0 is not ready: starting")
    consume_for(slot, 1)
    assert slot.ready == (True, "the worker on GPU 0 consumes")
    write_beat(slot.liveness.file, Beat(consumes=False, reason="waiting for Redis"))
    slot.check()
    assert slot.ready == (False, "the worker on GPU 0 is not ready: waiting for Redis")
    assert slot.alive.holds


def test_a_beat_of_a_new_process_is_not_that_of_the_one_before(slot, ended, tmp_path):
    start(slot, ended, 0.0)
    consume_for(slot, 1)
    start(slot, ended, 0.0)
    slot.check()
    assert not slot.ready.holds
    assert list(Path(tmp_path).glob("*")) == []
