"""A job that is brought back from the store: by one at a time, and not given out before its end."""

import pytest

from common.ledger import job_key
from common.progress import JobState
from producer import jobs
from producer.jobs import job_queue
from tests.support.staged import Job


@pytest.fixture
def forgotten(job, redis) -> Job:
    """A job of three batches that Redis lost after the first was done."""
    job.open()
    job.compute(job.manifest.batch(0))
    redis.flushall()
    return job


def test_while_a_job_is_brought_back_nobody_else_opens_it_and_nothing_is_queued(
    forgotten, monkeypatch
):
    restore, seen = jobs.restore, []

    def look_and_restore(*arguments: object) -> None:
        restore(*arguments)
        monkeypatch.undo()
        seen.append((forgotten.open(), forgotten.progress.state, forgotten.feeder.feed({})))
        seen.append(forgotten.ledger.queued(job_queue(forgotten.manifest)))

    monkeypatch.setattr(jobs, "restore", look_and_restore)
    assert forgotten.open() == 2
    assert seen == [(None, JobState.RESTORING, 0), 0]
    assert forgotten.progress.state is JobState.OPEN
    assert forgotten.queued() == {"fp16": 2}
    assert forgotten.open() == 2  # nobody is at it any more


def test_what_somebody_who_is_gone_began_to_bring_back_is_begun_anew(forgotten, redis):
    queue = job_queue(forgotten.manifest)
    assert forgotten.ledger.create(forgotten.manifest, queue, JobState.RESTORING)
    assert forgotten.ledger.hold_staging(forgotten.name, "who is gone")
    assert forgotten.open() is None
    redis.delete(f"{job_key(forgotten.name)}:staging")  # as it does by itself in a minute
    assert forgotten.open() == 2
    assert forgotten.progress.batches_done == 1


def test_a_job_that_was_all_done_is_finished_once_it_is_brought_back(forgotten, redis):
    forgotten.open()
    forgotten.work()
    redis.flushall()
    assert forgotten.open() == 0
    assert forgotten.progress.finished
