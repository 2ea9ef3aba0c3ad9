"""Watching: what a line of progress says."""

import pytest

from common.ledger import JobState, Progress, WorkerInfo
from common.rungs import Rung
from producer.watch import Speed, describe, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (18_420, "5 h 07 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_as_people_say_them(seconds, text):
    assert duration(seconds) == text


# --- speed --------------------------------------------------------------------------------------


def test_a_speed_is_that_between_the_first_look_and_the_last():
    speed = Speed(window=10)
    assert speed.update(100, 5000) is None
    assert speed.update(101, 5200) == 200
    assert speed.update(104, 5400) == 100


def test_a_speed_forgets_what_is_older_than_its_window():
    speed = Speed(window=10)
    for now in range(100):
        speed.update(now, 0)
    for now in range(100, 121):
        found = speed.update(now, 50 * (now - 99))
    assert found == 50


def test_a_speed_is_unknown_while_nothing_is_done():
    speed = Speed(window=10)
    speed.update(0, 0)
    assert speed.update(1, 100) == 100
    assert [speed.update(now, 100) for now in (20, 40)] == [None, None]


def test_a_speed_is_known_even_if_looks_are_further_apart_than_the_window():
    speed = Speed(window=1)
    speed.update(0, 0)
    assert speed.update(100, 1000) == 10
    assert speed.update(200, 3000) == 20


def test_a_speed_is_unknown_at_a_clock_that_stands_still_or_after_a_retry():
    speed = Speed()
    speed.update(5, 100)
    assert speed.update(5, 200) is None
    assert speed.update(6, 50) is None


# --- a line -------------------------------------------------------------------------------------


def progress(state: JobState = JobState.OPEN, **counts: int) -> Progress:
    return Progress(
        job="in-0123",
        state=state,
        model="m",
        queue="m.fp16",
        created=0,
        batches=1200,
        records=50_000,
        tokens=1_000_000,
        leased=0,
        now=0,
        counts=counts,
        weights=None,
        first_done=None,
        last_done=None,
    )


READY = WorkerInfo(
    name="cuda0-1@host",
    model="esm2_t6_8M_UR50D",
    weights="0123456789abcdef",
    device="GPU",
    precision=Rung.FP16,
    queues=("esm2_t6_8M_UR50D.fp16",),
)
LOADING = READY.model_copy(update={"weights": None})


def test_a_job_that_runs_has_batches_sequences_speed_and_time_to_go():
    running = progress(batches_done=300, rows_fp16=12_000, rows_fp32=345, tokens_done=250_000)
    assert describe(running, 1500.0, [READY, READY]) == (
        "300/1,200 batches · 12,345/50,000 sequences · 1,500 tokens/s · ETA 8 min 20 s"
    )


def test_a_job_without_a_worker_waits_for_one():
    assert describe(progress(), None, []) == (
        "0/1,200 batches · 0/50,000 sequences · waiting for a worker"
    )


def test_a_job_that_has_not_begun_says_how_many_workers_there_are():
    assert describe(progress(), None, [READY] * 3).endswith(" · 3 workers")


def test_a_job_whose_workers_all_load_their_model_says_so():
    assert describe(progress(), None, [LOADING, LOADING]).endswith(" · loading the model")
    assert describe(progress(), None, [LOADING, READY]).endswith(" · 2 workers")


@pytest.mark.parametrize("speed", [None, 500.0])
def test_a_finished_job_has_no_time_to_go_and_waits_for_nobody(speed):
    done = progress(JobState.FINISHED, batches_done=1200, tokens_done=1_000_000)
    line = describe(done, speed, [])
    assert "ETA" not in line
    assert "worker" not in line


def test_what_went_wrong_is_counted():
    troubled = progress(rows_unstable=1234, leases_lost=2, batches_failed=1)
    assert describe(troubled, None, [READY]).endswith(
        " · 1,234 unstable · 2 taken over · 1 batches failed"
    )
