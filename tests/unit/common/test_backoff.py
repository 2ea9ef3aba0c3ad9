"""Pauses between retries: bounded, growing and random."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from common.backoff import backoff

seconds = st.floats(0, 1e6)


@given(st.integers(0, 50), seconds, seconds, st.randoms(use_true_random=False))
def test_every_retry_has_a_pause_below_its_ceiling(retries, first, longest, random):
    pauses = list(backoff(retries, first=first, longest=longest, draw=random.random))
    assert len(pauses) == retries
    for retry, pause in enumerate(pauses):
        assert 0 <= pause <= min(first * 2**retry, longest)


def test_ceilings_double_up_to_the_longest():
    pauses = backoff(6, first=0.5, longest=5, draw=lambda: 1.0)
    assert list(pauses) == [0.5, 1, 2, 4, 5, 5]


def test_two_that_failed_together_do_not_come_back_together():
    assert list(backoff(3, first=1, longest=9)) != list(backoff(3, first=1, longest=9))


def test_pauses_stay_finite_however_many_there_are():
    pauses = backoff(10**9, first=1, longest=60, draw=lambda: 1.0)
    assert list(islice(pauses, 2000, 2001)) == [60]
