"""The pulse of a process: when it is not well, and when it is given up."""

from workers.process.liveness import (
    FIRST_BEAT_SECONDS,
    LOOK_SECONDS,
    SILENT_SECONDS,
    UNWELL_SECONDS,
    Liveness,
)


def look_for(pulse: Liveness, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_SECONDS)):
        pulse.look()


def test_a_process_whose_beats_stop_is_not_well_and_later_given_up(tmp_path):
    pulse = Liveness(tmp_path / "beat")
    pulse.file.touch()
    pulse.look()
    look_for(pulse, UNWELL_SECONDS - 1)
    assert pulse.is_well
    look_for(pulse, 2)
    assert (pulse.is_well, pulse.has_stopped) == (False, False)
    look_for(pulse, SILENT_SECONDS - UNWELL_SECONDS)
    assert pulse.has_stopped


def test_a_beat_makes_a_process_well_again(tmp_path):
    pulse = Liveness(tmp_path / "beat")
    pulse.file.touch()
    look_for(pulse, SILENT_SECONDS + 1)
    assert pulse.has_stopped
    pulse.file.touch()
    pulse.look()
    assert (pulse.is_well, pulse.has_stopped) == (True, False)


def test_a_process_has_more_time_until_its_first_beat(tmp_path):
    pulse = Liveness(tmp_path / "beat")
    pulse.file.touch()  # of the process before
    look_for(pulse, SILENT_SECONDS + 1)
    pulse.reset()
    look_for(pulse, FIRST_BEAT_SECONDS - 1)
    assert pulse.is_well
    look_for(pulse, 2)
    assert pulse.has_stopped


def test_a_process_that_is_not_well_is_given_up_before_a_probe_gives_up_its_supervisor():
    """README's probe looks for a minute: those of other GPUs need not end with it."""
    assert SILENT_SECONDS - UNWELL_SECONDS < 60
