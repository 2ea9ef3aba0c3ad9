"""Retrying quarantined rows: only they are computed, and all counts are right afterwards."""

from collections.abc import Callable

import pytest

from common.job.layout import quarantine_key, shard_key
from common.job.quarantine import read_quarantine
from common.ledger.progress import JobState
from common.rungs import Rung
from common.wire.messages import BatchResult, Instability, Status
from producer.scheduling.retry import quarantined_rows, retry_quarantined
from tests.support.jobs import ok, retry_after
from tests.support.staged import RECORDS, Job, bad, messages, tokens_of

FP16, SELECTIVE, FP32 = Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32

POISON = "it ended 2 worker processes"


def poisoned(row: int) -> Instability:
    record = next(record for record in RECORDS if record.row == row)
    return bad(record).model_copy(update={"reason": POISON})


def give_up(job: Job, index: int, *rows: int, unstable: tuple[int, ...] = ()) -> BatchResult:
    """Compute a batch at its first rung, except for rows that crash their process."""
    batch = job.manifest.batch(index)
    kept = [record for record in job.batches[index] if record.row not in (*rows, *unstable)]
    job.shard(index, batch.rung, [record.row for record in kept])
    given_up = tuple(map(poisoned, rows))
    job.quarantine(index, given_up)
    seen = tuple(bad(r, FP16) for r in job.batches[index] if r.row in unstable)
    result = ok(batch).model_copy(
        update={
            "status": Status.NUMERICAL_INSTABILITY if unstable else Status.POISONED,
            "records": len(kept),
            "tokens": tokens_of(kept),
            "poisoned": given_up,
            "unstable": seen,
            "next": SELECTIVE if unstable else None,
            "created": job.manifest.created.timestamp(),
        }
    )
    assert job.ledger.results.complete(result)
    return result


def retry(job: Job) -> int:
    job.take_all_messages()
    return retry_quarantined(job.store, job.ledger, job.publisher, job.manifest)


def counts_of(job: Job) -> dict[str, int]:
    others = {"milliseconds", "published"}
    counts = job.progress.counts.items()
    return {name: count for name, count in counts if count and name not in others}


def work_off(job: Job, *never_finite: int) -> None:
    while job.outstanding():
        job.work(*never_finite)


def shard_times(job: Job) -> dict[str, tuple[int, int]]:
    paths = (job.store.root / job.name / "output").iterdir()
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.fixture
def untroubled(job_of, ledger) -> Callable[[Rung], dict[str, int]]:
    """Return the counts of a job without any problem."""

    def counted(first: Rung) -> dict[str, int]:
        job = job_of(first=first)
        job.open()
        job.work()
        found = counts_of(job)
        for folder in list(job.store.folders()):
            job.store.delete(f"{folder}/")
        ledger.redis.flushall()
        return found

    return counted


# --- given up by the last rung ------------------------------------------------------------------


def test_rows_that_no_rung_could_embed_are_computed_again_at_the_last(job, redis):
    job.open()
    work_off(job, 3)
    assert job.progress.finished
    before = shard_times(job)
    assert retry(job) == 1
    assert job.progress.state is JobState.OPEN
    assert job.outstanding() == [(0, FP32)]
    (message,) = messages(redis, job.progress.queues[FP32])
    assert (message.index, message.previous_rung, message.records) == (0, SELECTIVE, 1)
    assert job.progress.rows_quarantined == 0
    work_off(job)
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 6, "fp32": 1}
    after = shard_times(job)
    last = f"{0:07d}.fp32.h5"
    assert {name for name in after if after[name] != before[name]} == {last}
    assert quarantined_rows(job.store, job.manifest) == []


def test_rows_that_are_given_up_once_more_are_counted_once(job):
    job.open()
    work_off(job, 3, 6)
    before, rows = counts_of(job), quarantined_rows(job.store, job.manifest)
    assert [row.row for row in rows] == [3, 6]
    assert retry(job) == 2
    work_off(job, 3, 6)
    assert counts_of(job) == before
    assert [row.row for row in quarantined_rows(job.store, job.manifest)] == [3, 6]


def test_a_job_that_begins_at_the_last_rung_computes_the_batch_anew(job_of, untroubled):
    expected = untroubled(FP32)
    job = job_of(first=FP32)
    job.open()
    work_off(job, 4)
    before = shard_times(job)
    assert retry(job) == 1
    assert job.outstanding() == [(1, FP32)]
    assert {*shard_times(job)} == {*before} - {f"{1:07d}.fp32.h5"}
    work_off(job)
    assert job.progress.finished
    assert counts_of(job) == expected


def test_what_a_worker_in_fp32_gave_up_at_the_first_rung_is_computed_anew(job):
    """The worker computes every rung in FP32, and there is none above."""
    job.open()
    job.shard(0, FP16, [0, 3], precision=FP32)
    job.quarantine(0, [bad(RECORDS[1], FP32)])
    for index in (1, 2):
        job.shard(index)
    job.ledger.redis.flushall()
    assert job.open() == 0
    assert retry(job) == 1
    assert job.outstanding() == [(0, FP16)]
    work_off(job)
    assert job.progress.rows_by_precision == {"fp16": 7}
    assert job.progress.finished


# --- given up because they end their process ----------------------------------------------------


def test_rows_that_end_their_process_go_on_to_the_next_rung_alone(job, redis):
    job.open()
    give_up(job, 0, 3)
    work_off(job)
    assert job.progress.finished
    assert counts_of(job)["rows_quarantined"] == 1
    before = shard_times(job)
    assert retry(job) == 1
    assert job.outstanding() == [(0, SELECTIVE)]
    (message,) = messages(redis, job.progress.queues[SELECTIVE])
    assert (message.index, message.previous_rung, message.records) == (0, FP16, 1)
    assert job.rows_of(message) == [3]
    work_off(job)
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 6, "selective_fp32": 1}
    assert "rows_quarantined" not in counts_of(job)
    assert {name: shard_times(job)[name] for name in before} == before
    assert read_quarantine(job.store, job.name, 0) == ()


def test_rows_that_end_their_process_and_rows_that_are_nan_are_tried_together(job):
    job.open()
    first = give_up(job, 0, 3, unstable=(1,))
    second = job.compute(retry_after(job.manifest, first), [1])
    job.compute(retry_after(job.manifest, second), [1])
    work_off(job)
    assert job.progress.finished
    assert [row.row for row in quarantined_rows(job.store, job.manifest)] == [1, 3]
    assert retry(job) == 1
    assert job.outstanding() == [(0, FP32)]
    work_off(job)
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 5, "fp32": 2}
    assert "rows_quarantined" not in counts_of(job)


def test_a_batch_of_which_other_rows_are_under_way_is_left_to_them(job):
    """The worker that has a batch knows only its own rows: the others would be lost."""
    job.open()
    first = give_up(job, 0, 3, unstable=(1,))
    job.claim(retry_after(job.manifest, first))
    before = counts_of(job)
    assert retry(job) == 0
    assert counts_of(job) == before
    assert [row.row for row in quarantined_rows(job.store, job.manifest)] == [3]


# --- all of it ----------------------------------------------------------------------------------


def test_a_job_in_which_nothing_was_given_up_has_nothing_to_retry(job):
    job.open()
    job.work()
    before = counts_of(job)
    assert retry(job) == 0
    assert job.progress.finished
    assert counts_of(job) == before


def test_what_is_tried_again_twice_is_tried_once(job):
    job.open()
    work_off(job, 3)
    assert retry(job) == 1
    assert retry(job) == 0
    assert job.outstanding() == [(0, FP32)]


def test_a_wiped_redis_learns_from_the_store_what_is_to_be_tried_again(job):
    job.open()
    give_up(job, 0, 3)
    work_off(job, 6)
    job.ledger.redis.flushall()
    job.open()
    assert job.progress.finished
    assert job.progress.rows_quarantined == 2
    assert retry(job) == 2
    assert job.outstanding() == [(0, SELECTIVE), (2, FP32)]
    work_off(job)
    assert job.progress.finished
    assert job.progress.rows_done == 7


def test_rows_are_named_in_input_order_with_the_reason(job):
    job.open()
    give_up(job, 2, 7)
    work_off(job, 0)
    first, last = quarantined_rows(job.store, job.manifest)
    assert (first.row, first.seen.keys()) == (0, {FP32})
    assert str(last).startswith("row 7 'id7' (4 letters): it ended 2 worker processes")


def test_a_quarantine_whose_shard_is_gone_is_computed_from_the_beginning(job):
    job.open()
    work_off(job, 4)
    for rung in (FP16, SELECTIVE, FP32):
        job.store.delete(shard_key(job.name, 1, rung))
    job.open()
    assert retry(job) == 1
    assert job.outstanding() == [(1, FP16)]
    assert not list(job.store.keys(quarantine_key(job.name, 1)))
    work_off(job)
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 7}
