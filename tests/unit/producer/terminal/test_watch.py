"""Watching: what a line of progress says, and how a job's end is told."""

import dataclasses

import pytest
from redis.exceptions import RedisError
from rich.console import Console

from common.errors import UserError
from common.ledger.events import Event, EventKind
from common.ledger.progress import JobState, Progress
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.store import StoreError
from producer.terminal import watch
from producer.terminal.watch import describe, duration, look, say_event, wait
from tests.support.jobs import SEEN, manifest_of, ok, progress, unstable


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


def test_a_job_whose_workers_all_have_other_weights_says_so():
    begun = dataclasses.replace(progress(batches_done=300), weights="another")
    words = " · its workers have other weights than it began with"
    assert describe(begun, None, [READY, LOADING]).endswith(words)
    assert words not in describe(begun, None, [LOADING])
    assert words not in describe(begun, None, [])
    mine = READY.model_copy(update={"weights": "another"})
    assert words not in describe(begun, None, [READY, mine])
    assert words not in describe(progress(), None, [READY])


@pytest.mark.parametrize("speed", [None, 500.0])
def test_a_finished_job_has_no_time_to_go_and_waits_for_nobody(speed):
    done = progress(JobState.FINISHED, batches_done=1200, tokens_done=1_000_000)
    line = describe(done, speed, [])
    assert "ETA" not in line
    assert "worker" not in line


def test_what_went_wrong_is_counted():
    troubled = progress(
        rows_retried=1234,
        rows_retried_again=99,
        rows_quarantined=5,
        leases_lost=2,
        batches_failed=1,
    )
    assert describe(troubled, None, [READY]).endswith(
        " · 1,234 retried · 5 quarantined · 2 lost with their workers and retaken"
        " · 1 batches failed"
    )


def test_what_did_not_go_wrong_is_not_spoken_of():
    line = describe(progress(batches_done=300, rows_fp16=12_000), None, [READY])
    assert line == "300/1,200 batches · 12,000/50,000 sequences · 1 worker"


# --- a look -------------------------------------------------------------------------------------

MANIFEST = manifest_of([3, 5])
JOB = MANIFEST.job


def quiet() -> Console:
    return Console(quiet=True)


class Shown(list[str]):
    """The lines that a look showed."""

    def __call__(self, text: str, _progress: Progress | None) -> None:
        self.append(text)


@pytest.fixture
def shown(ledger) -> Shown:
    ledger.jobs.create(MANIFEST, "m.fp16")
    return Shown()


def test_a_job_with_rows_to_retry_goes_on_and_says_so(ledger, shown):
    ledger.results.complete(ok(MANIFEST.batch(0)))
    ledger.results.complete(unstable(MANIFEST.batch(1), 4, 6))
    found = look(ledger, JOB, Speed(), shown)
    assert not found.finished
    (line,) = shown
    assert line.startswith("1/2 batches · 6/8 sequences · ")
    assert line.endswith(" · 2 retried")


def test_a_job_that_stopped_at_the_first_instability_ends_the_watch_with_the_reason(ledger, shown):
    ledger.results.complete(unstable(MANIFEST.batch(0)))
    ledger.results.complete(unstable(MANIFEST.batch(1), 4, 6, stops_job=True))
    with pytest.raises(UserError) as caught:
        look(ledger, JOB, Speed(), shown)
    assert str(caught.value) == (
        f"Job {JOB} stopped, as --on-instability fail asks for:\n"
        f"not finite: row 4 'r4' (10 letters): fp16: {SEEN}\n"
        f"not finite: row 6 'r6' (10 letters): fp16: {SEEN}\n"
        "Submit the same input with --on-instability retry, and they run again in higher precision."
    )
    assert shown == []


def test_a_job_that_was_cancelled_ends_the_watch(ledger, shown):
    ledger.jobs.cancel(JOB)
    with pytest.raises(UserError, match=f"Job {JOB} was cancelled"):
        look(ledger, JOB, Speed(), shown)


def test_a_job_that_redis_lost_may_come_back_from_the_store(ledger):
    shown = Shown()
    assert look(ledger, "none", Speed(), shown) is None
    assert shown == ["Redis no longer knows this job: looking for it in the store"]


def test_a_watch_keeps_its_job_going_until_it_is_finished(ledger, shown):
    batches = [MANIFEST.batch(index) for index in range(2)]
    done = wait(ledger, JOB, quiet(), keep=lambda: ledger.results.complete(ok(batches.pop())))
    assert done.finished
    assert batches == []


def test_a_job_that_redis_lost_is_waited_for_and_goes_on(ledger, monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    looks = []

    def come_back_and_finish() -> None:
        looks.append(1)
        if len(looks) == 3:
            ledger.jobs.create(MANIFEST, "m.fp16")
            for index in range(2):
                ledger.results.complete(ok(MANIFEST.batch(index)))

    assert wait(ledger, JOB, quiet(), keep=come_back_and_finish).finished
    assert len(looks) == 3


def test_a_job_that_redis_lost_for_good_ends_the_watch_with_what_to_do(ledger, monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    monkeypatch.setattr(watch, "UNKNOWN_SECONDS", 0)
    with pytest.raises(UserError, match="submit the same input again, and it goes on"):
        wait(ledger, JOB, quiet(), keep=lambda: None)


@pytest.mark.parametrize("error", [RedisError("it is loading"), StoreError("503.")])
def test_redis_and_the_store_are_waited_for(ledger, shown, monkeypatch, error, capsys):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    errors = [error]

    def keep() -> None:
        if errors:
            raise errors.pop()
        for index in range(2):
            ledger.results.complete(ok(MANIFEST.batch(index)))

    console = Console(width=200)
    assert wait(ledger, JOB, console, keep=keep).finished
    assert f"{JOB}: " in capsys.readouterr().out


# --- what was lost and is mended ----------------------------------------------------------------


@pytest.mark.parametrize(("worker", "end"), [(None, "."), ("cuda0-1@host", " (cuda0-1@host).")])
def test_what_was_lost_is_told_in_a_line(capsys, worker, end):
    say_event(
        Event(
            event=EventKind.LEASE_LOST,
            job=JOB,
            batch=7,
            rung=Rung.FP16,
            worker=worker,
            detail="its worker went away: queued again",
        )
    )
    told = f"Batch 7 of {JOB}, fp16: its worker went away: queued again{end}\n"
    assert capsys.readouterr().err == told
