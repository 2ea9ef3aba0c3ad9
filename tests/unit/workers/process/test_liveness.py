"""The liveness of a process: when it no longer counts as live, and when it counts as frozen."""

from workers.process.liveness import (
    CHECK_SECONDS,
    FIRST_HEARTBEAT_SECONDS,
    FROZEN_SECONDS,
    LATE_SECONDS,
    Liveness,
)


def check_for(liveness: Liveness, seconds: float) -> None:
    for _ in range(round(seconds / CHECK_SECONDS)):
        liveness.check()


def test_a_process_without_heartbeats_is_not_live_and_later_frozen(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    liveness.file.touch()
    liveness.check()
    check_for(liveness, LATE_SECONDS - 1)
    assert liveness.is_live
    check_for(liveness, 2)
    assert (liveness.is_live, liveness.is_frozen) == (False, False)
    check_for(liveness, FROZEN_SECONDS - LATE_SECONDS)
    assert liveness.is_frozen


def test_a_heartbeat_makes_a_process_live_again(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    liveness.file.touch()
    check_for(liveness, FROZEN_SECONDS + 1)
    assert liveness.is_frozen
    liveness.file.touch()
    liveness.check()
    assert (liveness.is_live, liveness.is_frozen) == (True, False)


def test_a_process_has_more_time_until_its_first_heartbeat(tmp_path):
    liveness = Liveness(tmp_path / "heartbeat")
    liveness.file.touch()  # of the process before
    check_for(liveness, FROZEN_SECONDS + 1)
    liveness.reset()
    check_for(liveness, FIRST_HEARTBEAT_SECONDS - 1)
    assert liveness.is_live
    check_for(liveness, 2)
    assert liveness.is_frozen


def test_a_process_that_is_frozen_is_killed_before_a_probe_restarts_its_supervisor():
    """The README's probe allows a minute: processes of other GPUs need not end."""
    assert FROZEN_SECONDS - LATE_SECONDS < 60
