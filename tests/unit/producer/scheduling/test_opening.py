"""Jobs: opened in a real Redis, and rebuilt from a real folder."""

import json

import pytest

from common.job.layout import output_prefix, quarantine_key, shard_key
from common.job.quarantine import read_quarantine
from common.job.shards import shards_of
from common.ledger.batches import Batches, Flags
from common.ledger.claims import ClaimOutcome
from common.ledger.progress import JobState, Progress
from common.rungs import Rung
from common.store import StoreError
from common.wire.messages import BatchResult, Status
from common.wire.queues import KEY_PREFIX
from producer.scheduling import restore
from producer.scheduling.opening import job_queue
from producer.scheduling.restore import result_of_shard, results_of_batch
from tests.support.jobs import failed, retry_after, unstable
from tests.support.staged import MAX_RESIDUES, RECORDS, Job, bad, messages, tokens_of

FP16, SELECTIVE, FP32 = Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32


# --- a new job ----------------------------------------------------------------------------------


def test_a_new_job_is_opened_and_all_of_its_batches_are_queued(job, redis):
    assert job.open() == 3
    assert job.progress.state is JobState.OPEN
    assert job.queued() == {"fp16": 3}
    expected = [job.manifest.batch(index) for index in range(3)]
    assert messages(redis, job_queue(job.manifest)) == expected
    assert job.progress.queue == job_queue(job.manifest) == "random.esm2_t6_8M_UR50D.fp16"


@pytest.mark.parametrize("first", [Rung.BF16, Rung.FP32])
def test_a_job_begins_at_the_rung_that_was_asked_for(job_of, first):
    job = job_of(first=first)
    assert job.open() == 3
    assert job.queued() == {first: 3}


def test_a_job_of_which_everything_is_done_queues_nothing(job):
    job.open()
    job.work()
    assert job.progress.finished
    assert job.open() == 0
    assert job.progress.finished


def test_a_job_that_goes_on_queues_what_is_neither_done_nor_under_way(job, redis):
    job.open()
    job.compute(job.manifest.batch(0))
    assert job.claim(job.manifest.batch(1)) is ClaimOutcome.TAKEN
    redis.delete(f"{KEY_PREFIX}{job_queue(job.manifest)}")
    assert job.open() == 1
    assert messages(redis, job_queue(job.manifest)) == [job.manifest.batch(2)]
    assert job.progress.batches_done == 1


def test_a_job_that_goes_on_queues_its_retries_at_their_rungs(job, redis):
    job.open()
    first = job.compute(job.manifest.batch(0), [0, 3])
    second = job.compute(job.manifest.batch(1), [4])
    again = job.compute(retry_after(job.manifest, second), [4])
    redis.delete(f"{KEY_PREFIX}{job_queue(job.manifest)}")
    assert job.open() == 3
    assert job.queued() == {"fp16": 1, "selective_fp32": 1, "fp32": 1}
    queues = job.progress.queues
    assert messages(redis, queues[SELECTIVE]) == [retry_after(job.manifest, first)]
    assert messages(redis, queues[FP32]) == [retry_after(job.manifest, again)]


def test_what_failed_is_tried_again_at_its_rung(job):
    job.open()
    retry = retry_after(job.manifest, job.compute(job.manifest.batch(0), [0]))
    job.ledger.results.complete(failed(retry))
    job.ledger.results.complete(failed(job.manifest.batch(1)))
    job.compute(job.manifest.batch(2))
    assert job.progress.finished
    assert job.open() == 2
    assert job.progress.state is JobState.OPEN
    assert job.outstanding() == [(0, SELECTIVE), (1, FP16)]
    job.work()
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 6, "selective_fp32": 1}


def test_a_job_that_stopped_goes_on_with_the_retry_and_what_was_not_begun(job, redis):
    job.open("fail")
    stopping = unstable(job.manifest.batch(0), 0, 3, stops_job=True)
    job.shard(0, FP16, [1])
    job.ledger.results.complete(stopping)
    assert job.progress.state is JobState.STOPPED
    job.take_all_messages()
    assert job.open() == 3
    assert job.progress.state is JobState.OPEN
    assert job.outstanding() == [(0, SELECTIVE), (1, FP16), (2, FP16)]
    assert job.queued() == {"fp16": 2, "selective_fp32": 1}
    assert messages(redis, job.progress.queues[SELECTIVE]) == [retry_after(job.manifest, stopping)]
    job.work()
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 5, "selective_fp32": 2}


def test_a_job_stops_at_instability_if_the_last_who_opened_it_asked_for_that(job):
    for policy in ("retry", "fail", "retry"):
        job.open(policy)
        assert job.ledger.jobs.stops_at_instability(job.name) == (policy == "fail")


def test_a_job_that_is_opened_on_a_wiped_ledger_stops_as_it_is_asked_to(job):
    job.open("fail")
    job.shard(0, FP16, [1])
    job.ledger.redis.flushall()
    assert job.open("fail") == 3
    assert job.ledger.jobs.stops_at_instability(job.name)
    assert job.outstanding() == [(0, SELECTIVE), (1, FP16), (2, FP16)]


# --- a ledger that is gone ----------------------------------------------------------------------


def test_a_job_without_any_shard_begins_at_the_beginning(job):
    job.open()
    job.ledger.redis.flushall()
    assert job.open() == 3
    assert job.outstanding() == [(0, FP16), (1, FP16), (2, FP16)]


def test_shards_with_all_rows_are_done(job):
    job.shard(0)
    job.shard(1)
    job.shard(2, precision=FP32)
    assert job.open() == 0
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 4, "fp32": 3}
    assert job.progress.tokens_done == tokens_of(RECORDS)
    assert job.ledger.results.all(job.name) == []


def test_rows_that_the_first_shard_lacks_are_to_be_retried(job, redis):
    job.shard(0, FP16, [1])
    job.shard(1)
    job.shard(2)
    assert job.open() == 1
    assert job.progress.state is JobState.OPEN
    assert job.progress.batches_done == 2
    assert job.progress.rows_retried == 2
    assert job.queued() == {"selective_fp32": 1}
    (retry,) = messages(redis, job.progress.queues[SELECTIVE])
    assert (retry.index, retry.rung, retry.previous_rung, retry.records) == (0, SELECTIVE, FP16, 2)
    (result,) = job.ledger.results.all(job.name)
    assert result.unstable == (bad(RECORDS[0]), bad(RECORDS[2]))


def test_a_batch_of_which_no_row_was_finite_is_to_be_retried_whole(job):
    job.shard(0, FP16, [])
    job.open()
    (result,) = job.ledger.results.all(job.name)
    assert [row.row for row in result.unstable] == [0, 1, 3]
    assert (0, SELECTIVE) in job.outstanding()


def test_rows_that_a_retry_repaired_are_done(job):
    job.shard(0, FP16, [1])
    job.shard(0, SELECTIVE, [0, 3])
    job.shard(1)
    job.shard(2)
    assert job.open() == 0
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 5, "selective_fp32": 2}
    assert job.progress.rows_retried == 2
    assert job.ledger.results.all(job.name) == []


def test_rows_that_went_through_all_rungs_are_known_with_what_each_saw(job):
    job.shard(0, FP16, [1])
    job.shard(0, SELECTIVE, [0])
    job.shard(0, FP32, [])
    job.shard(1)
    job.shard(2)
    quarantined = bad(RECORDS[2], FP16, SELECTIVE, FP32)
    job.quarantine(0, [quarantined])
    assert job.open() == 0
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 5, "selective_fp32": 1}
    counts = ("rows_retried", "rows_retried_again", "rows_quarantined")
    assert [job.progress.counts[name] for name in counts] == [2, 1, 1]
    (result,) = job.ledger.results.all(job.name)
    assert (result.rung, result.next, result.quarantined) == (FP32, None, (quarantined,))


def test_what_a_worker_in_fp32_could_not_embed_is_quarantined_at_the_first_rung(job):
    quarantined = bad(RECORDS[1], FP32)
    job.shard(0, FP16, [0, 3], precision=FP32)
    job.quarantine(0, [quarantined])
    job.shard(1)
    job.shard(2)
    assert job.open() == 0
    assert job.progress.finished
    (result,) = job.ledger.results.all(job.name)
    assert (result.rung, result.precision) == (FP16, FP32)
    assert result.quarantined == (quarantined,)


@pytest.mark.parametrize("keep", [0, 1000])
def test_a_batch_whose_only_shard_is_damaged_is_computed_anew(job, caplog, keep):
    job.damage(job.shard(0), keep)
    job.shard(1)
    job.shard(2)
    assert job.open() == 1
    assert job.outstanding() == [(0, FP16)]
    assert f"{shard_key(job.name, 0, FP16)} cannot be read (" in caplog.text
    assert "it will be computed again" in caplog.text


def test_from_a_damaged_shard_on_the_ladder_is_climbed_anew(job, caplog):
    job.shard(0, FP16, [1])
    job.damage(job.shard(0, SELECTIVE, [0]))
    job.shard(0, FP32, [3])
    job.shard(1)
    job.shard(2)
    assert job.open() == 1
    assert job.outstanding() == [(0, SELECTIVE)]
    assert job.progress.batches_done == 2
    assert job.progress.rows_by_precision == {"fp16": 5}
    assert f"{shard_key(job.name, 0, SELECTIVE)} cannot be read (" in caplog.text
    job.work(3)
    assert job.outstanding() == [(0, FP32)]
    job.work()
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 5, "selective_fp32": 1, "fp32": 1}


@pytest.mark.parametrize("lost", [FP16, SELECTIVE, FP32])
def test_from_a_shard_that_was_deleted_on_the_ladder_is_climbed_anew(job, lost):
    rows = {FP16: [1], SELECTIVE: [0], FP32: [3]}
    for rung in rows:
        job.shard(0, rung, rows[rung])
    job.store.delete(shard_key(job.name, 0, lost))
    job.shard(1)
    job.shard(2)
    assert job.open() == 1
    assert job.outstanding() == [(0, lost)]
    assert job.progress.batches_done == 2
    assert job.progress.rows_quarantined == 0


@pytest.mark.parametrize("lost", [FP16, SELECTIVE, FP32])
def test_a_ledger_that_counts_what_the_store_has_no_more_is_made_anew(job, lost):
    """Follow the advice of ``fetch``: delete the damaged shard and submit the input again."""
    job.open()
    job.work(3)
    job.work(3)
    job.work(3)
    assert job.progress.finished
    job.store.delete(shard_key(job.name, 0, lost))
    assert job.open() == 1
    assert job.outstanding() == [(0, lost)]
    while job.outstanding():
        job.work(3)
    assert job.progress.finished
    assert job.progress.rows_by_precision == {"fp16": 6}
    assert job.progress.rows_quarantined == 1


def test_a_quarantine_that_is_damaged_is_made_anew_with_the_last_shard(job):
    """Follow the advice of ``fetch``: delete both and submit the input again."""
    job.open()
    for _ in range(3):
        job.work(3)
    job.store.delete(quarantine_key(job.name, 0))
    job.store.delete(shard_key(job.name, 0, FP32))
    assert job.open() == 1
    assert job.outstanding() == [(0, FP32)]
    job.work(3)
    assert job.progress.finished
    assert [row.row for row in read_quarantine(job.store, job.name, 0)] == [3]


def test_shards_that_come_while_a_job_is_opened_do_not_make_its_ledger_doubtful(job, monkeypatch):
    """A worker writes a shard before it reports the result."""
    job.open()
    job.claim(job.manifest.batch(1), "busy")
    done, rest = Batches.done, [job.manifest.batch(0), job.manifest.batch(2)]

    def done_after_one_more(*arguments) -> Flags:
        if rest:
            job.compute(rest.pop())
        return done(*arguments)

    monkeypatch.setattr(Batches, "done", done_after_one_more)
    job.open()
    assert job.progress.batches_done == 2
    assert job.progress.leased == 1


def test_a_batch_is_counted_once_even_if_a_later_shard_is_there_without_need(job):
    """A worker in FP32 repeated the first rung after one in FP16 had begun the ladder."""
    job.shard(0, FP16, precision=FP32)
    job.shard(0, SELECTIVE, [3])
    job.shard(1)
    assert job.open() == 1
    assert job.progress.batches_done == 2
    assert job.progress.state is JobState.OPEN
    assert job.progress.rows_by_precision == {"fp16": 1, "fp32": 3}


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "0000000.fp8.h5", "0.fp16.h5", "0000003.fp16.h5", "-000001.fp16.h5", "x.fp16.h5"],
)
def test_a_stray_file_among_the_shards_is_warned_of_and_left_alone(job, caplog, name):
    key = f"{output_prefix(job.name)}{name}"
    job.store.put(key, b"something")
    job.shard(1)
    assert job.open() == 2
    assert job.outstanding() == [(0, FP16), (2, FP16)]
    assert f"{job.store.url}/{key} is not a shard of this job: ignored." in caplog.text
    assert job.store.get(key) == b"something"


def test_a_shard_of_a_rung_that_the_job_does_not_use_says_nothing(job):
    job.shard(0, FP16, [1])
    job.shard(0, Rung.BF16, [1])
    job.shard(0, SELECTIVE, [0, 3])
    assert job.open() == 2
    assert job.outstanding() == [(1, FP16), (2, FP16)]


def test_a_job_that_is_restored_keeps_the_weights_of_its_shards(job):
    job.shard(0, weights="others")
    job.open()
    assert job.progress.weights == "others"
    assert job.claim(job.manifest.batch(1)) is ClaimOutcome.OTHER_WEIGHTS


def test_a_job_is_counted_to_its_end_though_the_store_fails_in_the_midst_of_it(job, monkeypatch):
    for index in range(3):
        job.shard(index)

    def fail_at_the_last(*place) -> list[object]:
        if place[2] == 2:
            raise StoreError("503.")
        return results_of_batch(*place)

    with monkeypatch.context() as patched:
        patched.setattr(restore, "results_of_batch", fail_at_the_last)
        with pytest.raises(StoreError):
            job.open()
    assert job.queued() == {}  # what the store has is not computed again
    assert job.open() == 0
    assert job.progress.finished


def test_a_ledger_that_is_wiped_at_any_moment_is_rebuilt_as_it_was(job):
    """Restoring all rungs gives the same counters and the same outstanding batches."""
    job.open()
    for _ in range(8):
        before, to_do = job.progress, list(job.ledger.batches.outstanding(job.manifest))
        job.ledger.redis.flushall()
        job.open()
        assert list(job.ledger.batches.outstanding(job.manifest)) == to_do
        # The store does not say how long it took, nor is what is done published again.
        assert counts_of(job.progress) == counts_of(before)
        assert job.progress.state is before.state
        if to_do:
            job.compute(to_do[0], [3, 4])
    assert job.progress.finished
    assert job.progress.rows_quarantined == 2


def counts_of(progress: Progress) -> dict[str, int]:
    others = {"milliseconds", "published"}
    return {name: count for name, count in progress.counts.items() if name not in others}


# --- a shard ------------------------------------------------------------------------------------


def result_of(
    job: Job, index: int, rung: Rung = FP16, before: BatchResult | None = None
) -> BatchResult:
    key = shard_key(job.name, index, rung)
    result, weights = result_of_shard(job.store, job.manifest, index, rung, key, before)
    assert weights == "w"
    return result


def test_a_whole_shard_says_what_its_worker_reported(job):
    job.shard(0)
    assert result_of(job, 0) == BatchResult(
        job=job.name,
        index=0,
        rung=FP16,
        status=Status.OK,
        worker="store",
        precision=FP16,
        records=3,
        tokens=tokens_of(job.batches[0]),
        created=job.manifest.created.timestamp(),
    )


def test_a_shard_that_lacks_rows_says_where_they_go_on(job):
    job.shard(1, FP16, [])
    first = result_of(job, 1)
    assert (first.status, first.records, first.tokens) == (Status.NUMERICAL_INSTABILITY, 0, 0)
    assert (first.unstable, first.next) == ((bad(RECORDS[3]),), SELECTIVE)
    job.shard(1, SELECTIVE, [])
    second = result_of(job, 1, SELECTIVE, first)
    assert (second.previous_rung, second.unstable, second.next) == (FP16, first.unstable, FP32)
    job.shard(1, FP32, [4])
    third = result_of(job, 1, FP32, second)
    assert (third.previous_rung, third.status, third.next) == (SELECTIVE, Status.OK, None)
    assert (third.records, third.tokens) == (1, MAX_RESIDUES + 2)


def test_what_was_seen_of_rows_comes_from_their_quarantine(job):
    seen = bad(RECORDS[0], FP16, SELECTIVE, FP32)
    job.quarantine(0, [seen])
    job.shard(0, FP16, [1])
    assert result_of(job, 0).unstable == (seen, bad(RECORDS[2]))


def test_a_batch_without_quarantine_has_no_quarantined_rows(job):
    assert read_quarantine(job.store, job.name, 0) == ()


def test_a_quarantine_is_read_as_it_was_written(job):
    rows = (bad(RECORDS[0], FP16, FP32), bad(RECORDS[2]))
    job.quarantine(0, rows)
    assert read_quarantine(job.store, job.name, 0) == rows
    assert read_quarantine(job.store, job.name, 1) == ()
    text = json.loads(job.store.get(quarantine_key(job.name, 0)))
    assert (text["rows"][0]["id"], list(text["rows"][0]["seen"])) == ("id0", ["fp16", "fp32"])


def test_shards_are_found_by_batch_in_the_ladder_s_order(job):
    for rung in (FP32, SELECTIVE, Rung.BF16, FP16):
        job.shard(2, rung, [])
    job.shard(0)
    found = shards_of(job.store, job.manifest)
    assert {index: [rung for rung, _ in shards] for index, shards in found.items()} == {
        0: [FP16],
        2: [FP16, Rung.BF16, SELECTIVE, FP32],
    }
    assert all(shard_key(job.name, i, rung) == key for i, s in found.items() for rung, key in s)
