"""Keepers, retries and deletions that stop in the middle and go on an hour later.

They stop in a hook. Meanwhile another does the whole thing, or the job goes another way.
"""

import errno
import os
from datetime import datetime, timedelta

import pytest

from common.job.layout import closed_key, manifest_key, shard_key
from common.job.manifest import Manifest, write_manifest
from common.job.quarantine import read_quarantine
from common.ledger.locks import staging_key
from common.ledger.progress import JobState
from common.rungs import Rung
from common.store import folder
from producer.scheduling import closed as marks
from producer.scheduling import keeper, old_jobs, opening, restore, retry
from producer.scheduling.closed import read_closed
from producer.scheduling.job_lock import JobLockedError, job_lock
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import open_job
from producer.scheduling.retry import retry_quarantined
from tests.support.shards import store_inputs
from tests.support.staged import RECORDS, Job
from tests.support.woken import once_before
from tests.unit.producer.scheduling.test_keeper import DAY, clean, close_before, closed, step

FP32 = Rung.FP32


@pytest.fixture
def staged(job) -> Job:
    write_manifest(job.store, job.manifest)
    return job


@pytest.fixture
def kept(staged) -> Keeper:
    return Keeper(staged.store, staged.ledger, staged.publisher, keep=2 * DAY)


def expire(job: Job) -> None:
    """Let the time of the job's lock pass."""
    job.ledger.redis.delete(staging_key(job.name))


def stage_again(job: Job) -> Manifest:
    """Delete the job, and submit its input again, cut into other batches."""
    expire(job)
    with job_lock(job.ledger, job.name):
        job.ledger.jobs.forget(job.name)
        job.store.delete(f"{job.name}/")
        later = job.manifest.created + timedelta(hours=1)
        update = {"created": later, "staging": "0123", "batch_records": [7], "batch_tokens": [84]}
        manifest = store_inputs(job.store, job.manifest.model_copy(update=update), RECORDS)
        write_manifest(job.store, manifest, replace=False)
        open_job(job.store, job.ledger, job.publisher, manifest)
    return manifest


def contents(job: Job) -> dict[str, bytes]:
    return {key: job.store.get(key) for key in job.store.keys("")}


# --- keepers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["before the look", "before the write"])
def test_a_keeper_that_wakes_marks_no_resumed_job_as_closed(staged, kept, monkeypatch, hook):
    staged.open()
    step(kept)
    staged.ledger.jobs.cancel(staged.name)
    where, name = (marks, "read_closed") if hook == "before the look" else (staged.store, "put")
    once_before(monkeypatch, where, name, staged.open)
    step(kept)
    assert staged.progress.state is JobState.OPEN
    assert closed(staged) is None


def test_a_keeper_that_wakes_marks_no_job_that_was_staged_again(staged, kept, monkeypatch):
    staged.open()
    step(kept)
    staged.ledger.jobs.cancel(staged.name)
    once_before(monkeypatch, staged.store, "put", lambda: stage_again(staged))
    step(kept)
    assert closed(staged) is None


@pytest.mark.parametrize("hook", ["forget", "delete"])
@pytest.mark.parametrize("again", ["resumed", "staged"])
def test_a_keeper_that_wakes_deletes_no_job_that_is_wanted_again(
    staged, kept, monkeypatch, hook, again
):
    """It had looked: the job was closed for long. It stops before each step of the deletion."""
    staged.open()
    staged.work()
    close_before(staged, 3 * DAY)
    seen = {}

    def wanted() -> None:
        if again == "staged":
            stage_again(staged)
        else:
            expire(staged)
            staged.ledger.jobs.resume(staged.manifest, "retry")
            staged.open()
            staged.ledger.redis.hset(f"virnucpro:job:{staged.name}", "state", "open")
        seen.update(contents(staged))

    where = staged.ledger.jobs if hook == "forget" else staged.store
    once_before(monkeypatch, where, hook, wanted)
    clean(kept)
    assert contents(staged) == seen
    assert staged.progress.state is JobState.OPEN


def test_a_keeper_that_wakes_opens_no_manifest_of_before(staged, kept, monkeypatch, caplog):
    """It had read the manifest, to restore a job that Redis did not know."""
    later: list[Manifest] = []
    once_before(monkeypatch, opening, "shards_of", lambda: later.append(stage_again(staged)))
    step(kept)
    assert "deleted or submitted again meanwhile" in caplog.text
    assert staged.progress.created == later[0].created.timestamp()
    assert (staged.progress.batches, staged.progress.published) == (1, 1)


def test_a_keeper_that_wakes_counts_no_shard_of_before(staged, monkeypatch):
    """It had read shards to count them, and slept while all was counted and one was retried."""
    while_open(staged)
    staged.ledger.redis.flushall()
    open_job(staged.store, staged.ledger, staged.publisher, staged.manifest, count_stored=False)

    def another() -> None:
        restore.restore(staged.store, staged.ledger, staged.manifest)
        assert staged.progress.finished
        assert retried(staged) == 1

    complete_all = staged.ledger.results.complete_all
    once_before(monkeypatch, staged.ledger.jobs, "pin_weights", another)
    restore.restore_some(staged.store, staged.ledger, staged.manifest)
    assert staged.ledger.results.complete_all == complete_all
    assert staged.progress.state is JobState.OPEN
    assert staged.outstanding() == [(0, FP32)]


def test_a_keeper_that_wakes_clears_no_note_of_a_later_staging(staged):
    staged.open()
    later = staged.manifest.model_copy(update={"created": staged.manifest.created + DAY})
    staged.ledger.jobs.create(
        later, "m.fp16", stored=staged.ledger.batches.done(staged.manifest, Rung.FP16) | True
    )
    staged.ledger.batches.set_counted(staged.manifest, [0, 1, 2])
    staged.ledger.jobs.pin_weights(staged.manifest, "of before")
    assert staged.ledger.batches.stored(later).all()
    assert staged.progress.weights is None


# --- retries ------------------------------------------------------------------------------------


def while_open(job: Job) -> None:
    """Compute everything; row 3 is finite nowhere."""
    job.open()
    while job.outstanding():
        job.work(3)


def retried(job: Job) -> int:
    expire(job)
    job.take_all_messages()
    return retry_quarantined(job.store, job.ledger, job.publisher, job.manifest)


@pytest.mark.parametrize("hook", ["reopen", "delete"])
def test_a_retry_that_wakes_takes_back_nothing_of_another_retry(staged, monkeypatch, hook):
    while_open(staged)
    seen: dict[str, bytes] = {}

    def another() -> None:
        assert retried(staged) == 1
        while staged.outstanding():
            staged.work(3)  # again nowhere: there is a new shard, and a new quarantine
        seen.update(contents(staged))

    if hook == "reopen":
        once_before(monkeypatch, retry, "_reopen", another)
    else:
        once_before(monkeypatch, staged.store, "delete", another)
    with pytest.raises(JobLockedError):
        retry_quarantined(staged.store, staged.ledger, staged.publisher, staged.manifest)
    assert contents(staged) == seen
    assert staged.progress.finished
    assert staged.progress.rows_quarantined == 1
    assert [row.row for row in read_quarantine(staged.store, staged.name, 0)] == [3]


def test_a_job_that_is_retried_is_not_deleted_at_the_same_time(staged, kept):
    while_open(staged)
    close_before(staged, 3 * DAY)
    before = contents(staged)
    with job_lock(staged.ledger, staged.name):
        clean(kept)
        assert contents(staged) == before
        with pytest.raises(JobLockedError):
            retry_quarantined(staged.store, staged.ledger, staged.publisher, staged.manifest)
    clean(kept)
    assert contents(staged) == {}


@pytest.mark.parametrize("again", [False, True])
def test_an_old_job_that_redis_forgot_stays_if_it_is_resumed_meanwhile(
    staged, kept, monkeypatch, again
):
    """Redis may have been emptied again since."""
    staged.open()
    staged.work()
    close_before(staged, 3 * DAY)
    staged.ledger.redis.flushall()
    objects = {key for key in contents(staged) if key != closed_key(staged.name)}

    def resume() -> None:
        staged.open()
        if again:
            staged.ledger.redis.flushall()

    once_before(monkeypatch, staged.store, "delete", resume)
    clean(kept)
    assert set(contents(staged)) == objects
    step(kept)
    assert staged.progress.finished


# --- deletions in the middle --------------------------------------------------------------------


def test_a_deletion_that_wakes_in_the_middle_deletes_nothing_that_was_written_meanwhile(
    staged, monkeypatch
):
    """The folder is away at once: what is written under its name is another one."""
    staged.open()
    staged.work()
    key = shard_key(staged.name, 0, Rung.FP16)
    once_before(monkeypatch, folder.shutil, "rmtree", lambda: staged.store.put(key, b"new"))
    staged.store.delete(f"{staged.name}/")
    assert contents(staged) == {key: b"new"}


def test_what_another_process_cannot_delete_is_no_error_of_a_deletion(staged, monkeypatch):
    left = staged.store.root / ".deleted.0123"
    left.mkdir()
    rmdir = os.rmdir

    def refuse(path, *arguments, **options) -> None:
        if ".deleted.0123" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        rmdir(path, *arguments, **options)

    monkeypatch.setattr(os, "rmdir", refuse)
    staged.store.delete(f"{staged.name}/")
    assert contents(staged) == {}
    assert [path.name for path in staged.store.root.glob(".deleted.*")] == [left.name]


def test_what_a_killed_deletion_left_goes_with_the_next(staged):
    left = staged.store.root / ".deleted.0123" / "output"
    left.mkdir(parents=True)
    (left / "a.h5").write_bytes(b"a")
    assert manifest_key(staged.name) in contents(staged)
    assert not any(key.startswith(".") for key in contents(staged))
    staged.store.delete(f"{staged.name}/")
    assert contents(staged) == {}
    assert not left.parent.exists()


# --- clocks -------------------------------------------------------------------------------------


def clock_with(ahead: timedelta) -> type[datetime]:
    """Return a clock of this machine that is wrong."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + ahead

    return Clock


@pytest.mark.parametrize("ahead", [timedelta(days=40), timedelta(minutes=3), timedelta(minutes=-3)])
def test_nothing_is_deleted_while_the_clocks_differ(staged, kept, monkeypatch, caplog, ahead):
    staged.open()
    staged.work()
    close_before(staged, 3 * DAY)
    monkeypatch.setattr(old_jobs, "datetime", clock_with(ahead))
    before = contents(staged)
    clean(kept)
    assert contents(staged) == before
    assert "No old job is deleted: the clock here is" in caplog.text


def test_a_keeper_whose_clock_is_ahead_writes_redis_s_time(staged, kept, monkeypatch):
    staged.open()
    staged.work()
    for module in (old_jobs, marks, keeper):
        monkeypatch.setattr(module, "datetime", clock_with(timedelta(days=40)), raising=False)
    step(kept)
    mark = read_closed(staged.store, staged.name)
    assert abs(mark.time - staged.ledger.now()) < timedelta(minutes=1)
