"""A simulated job: it takes what its parts take, and what can overlap does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.one_job import SPREAD, Times, simulate_job
from workers.transport.consumer import THREADS

#: Relative difference of the time of many batches from that of the slowest part.
TOLERANCE = 0.05

#: Batches whose beginning and end hardly count.
MANY = 400

seconds = st.floats(0.001, 1)

few = settings(max_examples=30)


def job(
    batches: int = MANY,
    gpus: int = 1,
    *,
    begin: float = 0.0,
    stage: float = 0.001,
    read: float = 0.001,
    compute: float = 0.001,
    write: float = 0.001,
    tail: float = 0.0,
    seed: int = 0,
) -> Times:
    return simulate_job(
        batches,
        gpus,
        begin=begin,
        staging=[("producer", stage)],
        computing=[("store", read), ("GPU", compute)],
        writing=[("file", write)],
        tail=tail,
        seed=seed,
    )


@given(st.floats(0, 10), seconds, seconds, seconds, st.floats(0, 10))
def test_one_batch_goes_through_its_steps_one_after_another(begin, stage, read, write, tail):
    times = job(1, begin=begin, stage=stage, read=read, compute=0.0, write=write, tail=tail)
    assert times.first_queued == times.staged == pytest.approx(begin + stage)
    assert times.computed == pytest.approx(begin + stage + read)
    assert times.written == pytest.approx(begin + stage + read + write + tail)


@few
@given(st.sampled_from(["stage", "read", "compute"]), st.floats(0, 100))
def test_batches_are_computed_while_others_are_staged(slowest, begin):
    times = job(begin=begin, **{slowest: 1.0})
    assert times.computed - begin == pytest.approx(MANY, rel=TOLERANCE)
    assert times.written - begin == pytest.approx(MANY, rel=TOLERANCE)


def test_the_file_is_written_from_the_end_of_the_staging_on():
    times = job(stage=1.0, write=0.5)
    assert times.staged == pytest.approx(MANY)
    assert times.written == pytest.approx(MANY * 1.5, rel=TOLERANCE)


def test_what_is_there_when_the_staging_ends_is_written_while_the_rest_is_computed():
    times = job(compute=1.0, write=0.9)
    assert times.staged < 1
    assert times.written == pytest.approx(MANY, rel=TOLERANCE)


@few
@given(st.integers(1, 16))
def test_gpus_share_the_batches(gpus):
    assert job(gpus=gpus, compute=1.0).computed == pytest.approx(MANY / gpus, rel=2 * TOLERANCE)


def test_more_gpus_than_batches_are_of_no_use():
    assert job(3, gpus=50, compute=1.0).computed == pytest.approx(1, abs=SPREAD + 0.01)


def test_a_worker_has_no_more_batches_than_threads():
    """One part serves all of them at once; the other batches wait for a thread."""
    times = simulate_job(
        2 * THREADS,
        1,
        begin=0.0,
        staging=[("producer", 0.0)],
        computing=[("GPU", 0.0), ("store", 1.0)],
        writing=[("file", 0.0)],
        tail=0.0,
    )
    assert times.computed == pytest.approx(2 * THREADS)


@few
@given(st.integers(1, 60), st.integers(1, 5), seconds, seconds, seconds, seconds)
def test_no_job_is_faster_than_any_of_its_parts(batches, gpus, stage, read, compute, write):
    times = job(batches, gpus, stage=stage, read=read, compute=compute, write=write)
    assert times.first_queued <= times.staged <= times.computed <= times.written
    assert times.staged >= batches * stage * (1 - 1e-9)
    assert times.computed >= batches * compute / gpus * (1 - SPREAD)
    assert times.written >= times.staged + write
    assert times.written >= batches * write


def test_the_same_seed_gives_the_same_times_and_another_one_nearly_the_same():
    first, again, other = (job(compute=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert other.written == pytest.approx(first.written, rel=TOLERANCE)
