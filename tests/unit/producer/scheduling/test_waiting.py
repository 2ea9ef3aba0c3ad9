"""Waiting for a job: the result of a look, and the ends of waiting."""

import pytest
from redis.exceptions import RedisError

from common.errors import UserError, WaitTimeoutError
from common.ledger.ledger import Ledger
from common.ledger.speed import Speed
from common.store import StoreError
from producer.scheduling import waiting
from producer.scheduling.observation import Observation
from producer.scheduling.waiting import look, wait
from producer.terminal.job_view import JobView, details
from tests.support.jobs import SEEN, manifest_of, ok, unstable

MANIFEST = manifest_of([3, 5])
JOB = MANIFEST.job


@pytest.fixture
def open_ledger(ledger) -> Ledger:
    ledger.jobs.create(MANIFEST, "m.fp16")
    return ledger


def test_a_job_with_rows_to_retry_goes_on_and_says_so(open_ledger):
    open_ledger.results.complete(ok(MANIFEST.batch(0)))
    open_ledger.results.complete(unstable(MANIFEST.batch(1), 4, 6))
    found = look(open_ledger, JOB, Speed())
    assert not found.progress.finished
    view = JobView()
    view.update(found)
    assert details(view) == ["1/2 batches", "6/8 sequences", "2 retried"]


def test_a_job_that_stopped_at_the_first_instability_ends_the_watch_with_the_reason(open_ledger):
    open_ledger.results.complete(unstable(MANIFEST.batch(0)))
    open_ledger.results.complete(unstable(MANIFEST.batch(1), 4, 6, stops_job=True))
    seen: list[Observation] = []
    with pytest.raises(UserError) as caught:
        wait(open_ledger, JOB, keep=lambda: None, on_progress=seen.append, timeout=0)
    assert [found.progress.state for found in seen] == ["stopped"]
    assert str(caught.value) == (
        f"Job {JOB} stopped, as on_instability fail asks for:\n"
        f"not finite: row 4 'r4' (10 letters): fp16: {SEEN}\n"
        f"not finite: row 6 'r6' (10 letters): fp16: {SEEN}\n"
        "To run these in higher precision: job.resume(on_instability='retry')"
    )


def test_a_job_that_was_cancelled_ends_the_watch(open_ledger):
    open_ledger.jobs.cancel(JOB)
    seen: list[Observation] = []
    with pytest.raises(UserError, match=f"Job {JOB} was cancelled"):
        wait(open_ledger, JOB, keep=lambda: None, on_progress=seen.append, timeout=0)
    assert [found.progress.state for found in seen] == ["cancelled"]


def test_a_job_that_redis_lost_may_come_back_from_the_store(ledger):
    found = look(ledger, "none", Speed())
    assert found.progress is None
    assert found.trouble == "Redis no longer knows this job: looking for it in the store"


def test_a_watch_keeps_its_job_going_until_it_is_finished(open_ledger):
    batches = [MANIFEST.batch(index) for index in range(2)]
    done = wait(open_ledger, JOB, keep=lambda: open_ledger.results.complete(ok(batches.pop())))
    assert done.finished
    assert batches == []


def test_a_job_that_redis_lost_is_waited_for_and_goes_on(ledger, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0)
    looks = []

    def come_back_and_finish() -> None:
        looks.append(1)
        if len(looks) == 3:
            ledger.jobs.create(MANIFEST, "m.fp16")
            for index in range(2):
                ledger.results.complete(ok(MANIFEST.batch(index)))

    assert wait(ledger, JOB, keep=come_back_and_finish).finished
    assert len(looks) == 3


def test_a_job_that_redis_lost_for_good_ends_the_watch_with_what_to_do(ledger, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0)
    monkeypatch.setattr(waiting, "UNKNOWN_SECONDS", 0)
    with pytest.raises(UserError, match=r"If its store still has it: job.resume\(\)"):
        wait(ledger, JOB, keep=lambda: None)


@pytest.mark.parametrize("error", [RedisError("it is loading"), StoreError("503.")])
def test_redis_and_the_store_are_waited_for(open_ledger, monkeypatch, error):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0)
    errors = [error]

    def keep() -> None:
        if errors:
            raise errors.pop()
        for index in range(2):
            open_ledger.results.complete(ok(MANIFEST.batch(index)))

    seen: list[Observation] = []
    assert wait(open_ledger, JOB, keep=keep, on_progress=seen.append).finished
    assert str(error) in seen[0].trouble
    assert "aiting for it" in seen[0].trouble
    assert seen[0].progress is None


def test_waiting_ends_at_its_timeout(open_ledger, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0)
    with pytest.raises(WaitTimeoutError, match=f"Job {JOB} did not finish within 0.01 seconds"):
        wait(open_ledger, JOB, keep=lambda: None, timeout=0.01)
