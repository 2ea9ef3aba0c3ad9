"""``Job.retry(damaged=True)``: shards that cannot be used are deleted, and nothing else."""

from collections.abc import Callable
from functools import partial

import pytest

from common.job.layout import input_key, quarantine_key, shard_key
from common.job.manifest import write_manifest
from common.rungs import Rung
from common.store import FileStore
from producer.fleet import job as fleet_job
from producer.fleet.fleet import Fleet
from producer.output import job_shards
from producer.scheduling.job_lock import JobLockedError, job_lock
from tests.support.shards import store_shard
from tests.support.staged import Job
from tests.support.woken import once_before
from tests.unit.producer.scheduling.test_woken import expire

FP16, SELECTIVE, FP32 = Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32


@pytest.fixture
def staged(job, redis_url) -> Job:
    write_manifest(job.store, job.manifest)
    job.open()
    return job


@pytest.fixture
def retry(staged, redis_url) -> Callable[[], int]:
    fleet = Fleet(broker=redis_url, store=str(staged.store.root))
    return lambda: fleet.job(staged.name).retry(damaged=True)


def work_off(job: Job, *never_finite: int) -> None:
    while job.outstanding():
        job.work(*never_finite)


def shards(job: Job) -> set[str]:
    return set(job.store.keys(f"{job.name}/output/"))


def flip(job: Job, key: str, place: float = 0.5) -> None:
    data = bytearray(job.store.get(key))
    data[int(place * len(data))] ^= 1
    job.store.put(key, bytes(data))


def test_only_what_cannot_be_used_is_computed_again_and_counted_once(staged, retry):
    work_off(staged)
    before = shards(staged)
    flip(staged, shard_key(staged.name, 1, FP16))
    assert retry() == 1
    assert staged.outstanding() == [(1, FP16)]
    assert before - shards(staged) == {shard_key(staged.name, 1, FP16)}
    work_off(staged)
    assert staged.progress.finished
    assert staged.progress.rows_done == 7
    assert retry() == 0


@pytest.mark.parametrize("rung", [FP16, SELECTIVE, FP32])
def test_a_damaged_rung_has_its_batch_go_up_the_ladder_from_there(staged, retry, rung):
    work_off(staged, 3)
    key = shard_key(staged.name, 0, rung)
    flip(staged, key)
    assert retry() == 1
    assert staged.outstanding() == [(0, rung)]
    work_off(staged, 3)
    assert staged.progress.finished
    assert staged.progress.rows_quarantined == 1
    assert retry() == 0


def test_the_shard_of_another_batch_or_of_an_earlier_submission_is_computed_again(staged, retry):
    work_off(staged)
    other = shard_key(staged.name, 1, FP16)
    staged.store.put(shard_key(staged.name, 2, FP16), staged.store.get(other))
    earlier = staged.manifest.created.replace(year=2020)
    store_shard(staged.store, staged.manifest.model_copy(update={"created": earlier}), 0)
    assert retry() == 2
    assert shards(staged) == {other}


def test_rows_that_are_in_no_shard_and_no_quarantine_are_computed_again(staged, retry):
    work_off(staged, 3)
    staged.store.delete(quarantine_key(staged.name, 0))
    assert retry() == 1
    assert staged.outstanding() == [(0, FP32)]


def test_a_damaged_input_object_and_other_weights_delete_nothing(staged, retry):
    work_off(staged)
    store_shard(staged.store, staged.manifest, 2, weights="others")
    staged.store.put(input_key(staged.name, 0, ""), b">x\nM")
    before = shards(staged)
    assert retry() == 0
    assert shards(staged) == before


def test_shards_for_which_there_is_no_memory_are_not_deleted(staged, retry, monkeypatch):
    work_off(staged)
    before = shards(staged)

    def read(*_):
        raise MemoryError

    monkeypatch.setattr(job_shards, "read_embeddings", read)
    assert retry() == 0
    assert shards(staged) == before


def test_batches_that_are_under_way_are_left_to_their_workers(staged, retry):
    work_off(staged)
    staged.store.delete(shard_key(staged.name, 0, FP16))
    assert retry() == 1
    staged.compute(staged.manifest.batch(0), [3])
    before = shards(staged)
    flip(staged, shard_key(staged.name, 0, FP16))
    assert retry() == 1
    assert shards(staged) == before


@pytest.mark.parametrize("meanwhile", ["a worker replaced it", "another retry ended"])
def test_a_retry_that_wakes_up_deletes_no_good_shard(staged, retry, monkeypatch, meanwhile):
    work_off(staged)
    key = shard_key(staged.name, 1, FP16)
    good = staged.store.get(key)
    flip(staged, key)

    def others() -> None:
        staged.store.put(key, good)
        if meanwhile == "another retry ended":
            expire(staged)
            with job_lock(staged.ledger, staged.name):
                pass

    if meanwhile == "a worker replaced it":
        once_before(monkeypatch, fleet_job, "job_lock", others)
        assert retry() == 0
    else:
        before_deletion = partial(once_before, monkeypatch, FileStore, "delete", others)
        once_before(monkeypatch, fleet_job, "delete_damaged", before_deletion)
        with pytest.raises(JobLockedError):
            retry()
    assert staged.store.get(key) == good
