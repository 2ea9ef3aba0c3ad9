"""The place of a process: between crashes it is alive, unless the crashes repeat."""

import subprocess
import sys
from pathlib import Path

import pytest

from workers.process.beat import Beat, write_beat
from workers.process.exit_codes import EXIT_DEVICE_LOST, EXIT_DEVICE_UNUSABLE, EXIT_USER_ERROR
from workers.process.liveness import CHECK_SECONDS, Liveness
from workers.process.slot import LONGEST_PAUSE, MAX_ENDS, PROVEN_SECONDS, Slot

CRASH = 1


@pytest.fixture
def slot(tmp_path) -> Slot:
    return Slot("0", tmp_path / "ready", Liveness(tmp_path / "heartbeat"))


@pytest.fixture(scope="module")
def ended() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process


def start(slot: Slot, process: "subprocess.Popen[bytes]") -> None:
    slot.liveness.reset()
    slot.ready_file.unlink(missing_ok=True)
    slot.note_start(process)


def beat_for(slot: Slot, seconds: float, beat: Beat) -> None:
    for _ in range(round(seconds / CHECK_SECONDS)):
        write_beat(slot.liveness.file, beat)
        slot.check()


def consume_for(slot: Slot, seconds: float) -> None:
    slot.ready_file.touch()
    beat_for(slot, seconds, Beat())


def crash(slot: Slot, process, *, after: float = 6.0, code: int = CRASH) -> None:
    start(slot, process)
    consume_for(slot, after)
    slot.note_end(code, now=after)


def test_a_process_that_crashed_is_about_to_be_started_again_and_so_alive(slot, ended):
    crash(slot, ended)
    assert slot.alive == (True, "the worker on GPU 0 is started again soon")
    assert slot.ready == (False, "the worker on GPU 0 is not running")
    start(slot, ended)
    assert slot.alive.holds


def test_a_place_whose_processes_crash_again_and_again_is_not_alive_until_one_has_run_well(
    slot, ended
):
    for _ in range(MAX_ENDS):
        assert slot.alive.holds
        crash(slot, ended)
    assert slot.alive == (False, f"the worker on GPU 0 ended {MAX_ENDS} times in a row")
    start(slot, ended)
    assert not slot.alive.holds  # it loads its model
    consume_for(slot, PROVEN_SECONDS - 2)
    assert (slot.alive.holds, slot.ready.holds) == (False, True)
    consume_for(slot, 3)
    assert slot.alive.holds


def test_a_process_that_consumed_for_long_ends_a_row_of_crashes(slot, ended):
    for _ in range(MAX_ENDS - 1):
        crash(slot, ended)
    assert slot.pause == 2 ** (MAX_ENDS - 2)
    start(slot, ended)
    consume_for(slot, PROVEN_SECONDS + 1)
    beat_for(slot, 10, Beat(consumes=False, reason="waiting for Redis"))
    slot.note_end(CRASH, now=100.0)
    assert (slot.alive.holds, slot.ends, slot.pause) == (True, 1, 1)


def test_the_time_for_which_a_process_loads_its_model_does_not_end_a_row_of_crashes(slot, ended):
    now = 0.0
    for _ in range(MAX_ENDS):
        start(slot, ended)
        beat_for(slot, 300, Beat(consumes=False, reason="loading m"))
        consume_for(slot, 5)
        now += 305
        slot.note_end(CRASH, now)
    assert not slot.alive.holds
    assert slot.pause == 2 ** (MAX_ENDS - 1)


def test_a_gpu_that_cannot_be_used_is_an_end_of_its_own_code_whatever_it_means(slot, ended):
    start(slot, ended)
    assert slot.note_end(EXIT_DEVICE_UNUSABLE, 0.0) == EXIT_DEVICE_UNUSABLE
    assert slot.alive.holds
    required = slot.note_end(EXIT_DEVICE_UNUSABLE, 0.0, gpus_required=True)
    assert (required, slot.alive.holds, slot.losses) == (EXIT_USER_ERROR, False, 0)
    slot.was_ready = True
    lost = slot.note_end(EXIT_DEVICE_UNUSABLE, 0.0, gpus_required=True)
    assert (lost, slot.losses) == (EXIT_DEVICE_LOST, 1)
    assert slot.codes == {EXIT_DEVICE_UNUSABLE: 3}


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
    start(slot, ended)
    assert slot.ready == (False, "the worker on GPU 0 is not ready: starting")
    consume_for(slot, 1)
    assert slot.ready == (True, "the worker on GPU 0 consumes")
    write_beat(slot.liveness.file, Beat(consumes=False, reason="waiting for Redis"))
    slot.check()
    assert slot.ready == (False, "the worker on GPU 0 is not ready: waiting for Redis")
    assert slot.alive.holds


def test_a_beat_of_a_new_process_is_not_that_of_the_one_before(slot, ended, tmp_path):
    start(slot, ended)
    consume_for(slot, 1)
    start(slot, ended)
    slot.check()
    assert not slot.ready.holds
    assert list(Path(tmp_path).glob("*")) == []


def test_a_process_stays_ready_if_its_folder_for_temporary_files_is_cleaned(slot, ended):
    start(slot, ended)
    consume_for(slot, 1)
    slot.ready_file.unlink()
    slot.check()
    assert slot.ready.holds
    start(slot, ended)
    write_beat(slot.liveness.file, Beat())
    slot.check()
    assert not slot.ready.holds
