"""Losses of devices: three within half an hour are too many."""

from hypothesis import given
from hypothesis import strategies as st

from workers.process.device_losses import LOSS_SECONDS, MAX_LOSSES, DeviceLosses


def test_three_losses_within_half_an_hour_are_too_many_and_two_are_not():
    losses = DeviceLosses()
    assert (MAX_LOSSES, LOSS_SECONDS) == (3, 1800)
    for time in (0.0, 600.0):
        losses.add(time)
        assert not losses.are_too_many(time)
    losses.add(1800.0)
    assert losses.are_too_many(1800.0)
    assert not losses.are_too_many(1801.0)


@given(st.lists(st.floats(0, 4 * LOSS_SECONDS), max_size=12).map(sorted), st.integers(1, 5))
def test_they_are_too_many_if_and_only_if_as_many_lie_within_the_time(times, most):
    losses = DeviceLosses(most)
    for number, time in enumerate(times):
        losses.add(time)
        recent = [t for t in times[: number + 1] if time - t <= LOSS_SECONDS]
        assert losses.are_too_many(time) == (len(recent) >= most)
