"""The liveness of a process: when it no longer counts as live, and when it is to be killed."""

from workers.process.beat import Beat, block_of, write_beat
from workers.process.liveness import (
    CHECK_SECONDS,
    DEAF_SECONDS,
    FIRST_HEARTBEAT_SECONDS,
    FROZEN_SECONDS,
    LATE_SECONDS,
    MISSED_SECONDS,
    Liveness,
)

DEAF = Beat(alive=False, consumes=False, reason="deaf")


def check_for(liveness: Liveness, seconds: float, beat: Beat | None = None) -> None:
    """Check for a time, in which the process writes a beat every second if it is given one."""
    for number in range(round(seconds / CHECK_SECONDS)):
        if beat is not None and number % 5 == 0:
            liveness.file.unlink(missing_ok=True)
            write_beat(liveness.file, beat)
        liveness.check()


def test_a_process_without_heartbeats_is_not_live_and_later_frozen(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    write_beat(liveness.file, Beat())
    liveness.check()
    assert liveness.consumes
    check_for(liveness, MISSED_SECONDS + 1)
    assert (liveness.consumes, liveness.problem) == (False, None)
    assert liveness.stage == "no heartbeat for 11 s"
    check_for(liveness, LATE_SECONDS - MISSED_SECONDS - 2)
    assert liveness.problem is None
    check_for(liveness, 2)
    assert liveness.problem == "no heartbeat for 46 s"
    assert not liveness.is_frozen
    check_for(liveness, FROZEN_SECONDS - LATE_SECONDS)
    assert liveness.is_frozen


def test_a_heartbeat_makes_a_process_live_again(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    liveness.file.touch()
    check_for(liveness, FROZEN_SECONDS + 1)
    assert liveness.is_frozen
    liveness.file.touch()
    liveness.check()
    assert (liveness.problem, liveness.is_frozen) == (None, False)


def test_half_a_beat_is_a_heartbeat_and_says_what_the_last_one_said(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    check_for(liveness, 1, DEAF)
    check_for(liveness, FROZEN_SECONDS - 1)
    liveness.file.write_bytes(block_of(Beat())[:20])
    liveness.check()
    assert (liveness.problem, liveness.is_frozen) == ("deaf", False)


def test_a_process_has_more_time_until_its_first_heartbeat(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    liveness.file.touch()  # of the process before
    check_for(liveness, FROZEN_SECONDS + 1)
    liveness.reset()
    check_for(liveness, FIRST_HEARTBEAT_SECONDS - 1)
    assert liveness.problem is None
    check_for(liveness, 2)
    assert liveness.is_frozen


def test_a_process_that_says_that_it_is_not_alive_is_not_and_is_replaced_if_it_stays_so(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    check_for(liveness, DEAF_SECONDS - 1, DEAF)
    assert (liveness.problem, liveness.is_deaf, liveness.consumes) == ("deaf", False, False)
    check_for(liveness, 2, DEAF)
    assert liveness.is_deaf
    check_for(liveness, 1, Beat())
    assert (liveness.problem, liveness.is_deaf, liveness.consumes) == (None, False, True)


def test_a_process_that_loads_its_model_is_live_for_as_long_as_it_says_so(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    check_for(liveness, 2 * FROZEN_SECONDS, Beat(consumes=False, reason="loading m"))
    assert (liveness.problem, liveness.is_frozen, liveness.is_deaf) == (None, False, False)
    assert not liveness.consumes


def test_the_seconds_for_which_a_process_has_consumed_begin_anew_after_a_break(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    check_for(liveness, 20, Beat())
    assert 19 < liveness.consuming_seconds <= 20
    check_for(liveness, 1, Beat(consumes=False, reason="waiting for Redis"))
    check_for(liveness, 5, Beat())
    assert 4 < liveness.consuming_seconds <= 5


def test_a_process_that_is_frozen_is_killed_before_a_probe_restarts_its_supervisor():
    """The README's probe allows a minute: processes of other GPUs need not end."""
    assert FROZEN_SECONDS - LATE_SECONDS < 60
    assert DEAF_SECONDS < 60
