"""A job that Redis lost: its shards are counted step by step while the rest continues."""

import pytest

from common.job.manifest import write_manifest
from common.ledger.claims import ClaimOutcome
from producer.scheduling import restore
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import open_job
from producer.scheduling.restore import restore_some
from tests.support.staged import Job


@pytest.fixture
def forgotten(job, redis, monkeypatch) -> Job:
    """A job of three batches that Redis lost after two were done."""
    monkeypatch.setattr(restore, "BATCHES_PER_CALL", 1)
    job.open()
    for index in (0, 2):
        job.compute(job.manifest.batch(index))
    redis.flushall()
    return job


def open_and_count_later(job: Job) -> int:
    return open_job(job.store, job.ledger, job.publisher, job.manifest, count_stored=False)


def test_what_the_store_has_not_goes_on_before_the_rest_is_counted(forgotten):
    assert open_and_count_later(forgotten) == 1
    assert forgotten.queued() == {"fp16": 1}
    assert forgotten.progress.batches_done == 0
    assert [batch.index for batch in forgotten.ledger.batches.outstanding(forgotten.manifest)] == [
        1
    ]
    assert forgotten.claim(forgotten.manifest.batch(1)) is ClaimOutcome.TAKEN


def test_it_is_counted_bit_by_bit_by_whoever_is_there(forgotten):
    open_and_count_later(forgotten)
    left = []
    while forgotten.ledger.batches.has_stored(forgotten.name):
        restore_some(forgotten.store, forgotten.ledger, forgotten.manifest)
        left.append(forgotten.progress.batches_done)
    assert left == [1, 2]
    forgotten.compute(forgotten.manifest.batch(1))
    assert forgotten.progress.finished


def test_a_second_who_opens_the_job_counts_the_rest_and_queues_nothing_that_is_stored(forgotten):
    open_and_count_later(forgotten)
    restore_some(forgotten.store, forgotten.ledger, forgotten.manifest)
    assert forgotten.open() == 1
    assert forgotten.progress.batches_done == 2
    assert {batch.index for batch in forgotten.ledger.batches.outstanding(forgotten.manifest)} == {
        1
    }


def test_a_keeper_counts_it(forgotten):
    write_manifest(forgotten.store, forgotten.manifest)
    keeper = Keeper(forgotten.store, forgotten.ledger, forgotten.publisher)
    keeper.step()
    assert forgotten.progress.batches_done == 2
    assert not forgotten.ledger.batches.has_stored(forgotten.name)


def test_a_damaged_shard_is_computed_anew_once_it_was_looked_at(forgotten):
    forgotten.damage(forgotten.shard(0))
    open_and_count_later(forgotten)
    assert forgotten.queued() == {"fp16": 1}
    assert forgotten.open() == 2
    assert forgotten.progress.batches_done == 1
    assert {batch.index for batch in forgotten.ledger.batches.outstanding(forgotten.manifest)} == {
        0,
        1,
    }


def test_a_job_that_was_all_done_is_finished_once_it_is_counted(forgotten, redis):
    forgotten.open()
    forgotten.work()
    redis.flushall()
    assert forgotten.open() == 0
    assert forgotten.progress.finished
