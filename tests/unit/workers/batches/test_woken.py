"""Workers that stop in the middle of a batch and go on after another has computed it."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from common.embeddings.shards import read_label
from common.errors import UserError
from common.job.layout import output_prefix, shard_key
from common.job.manifest import Manifest, write_manifest
from common.job.quarantine import read_quarantine
from common.rungs import Rung
from producer.output.fetch import fetch
from tests.support.jobs import ok
from tests.support.shards import store_inputs
from tests.support.woken import once_before
from tests.support.worlds import RECORDS, WORKER, FakeEngine, World
from workers.batches import runner
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.outcome import OutcomeKind
from workers.batches.runner import BatchRunner

FP16, FP32 = Rung.FP16, Rung.FP32


@pytest.fixture
def seen() -> dict[str, bytes]:
    """What the store has when the other worker is done."""
    return {}


@pytest.fixture
def another(world: World, seen: dict[str, bytes]) -> Callable[[], None]:
    """Have the lease expire, and another worker compute the batch, on a device of its own kind."""

    def compute() -> None:
        batch = world.manifest.batch(0)
        world.lapse(batch)
        world.ledger.leases.expire(world.job)
        world.runner(FakeEngine(precision=FP32), name="b").run(batch)
        seen.update(contents(world))

    return compute


def contents(world: World) -> dict[str, bytes]:
    return {key: world.store.get(key) for key in world.store.keys(output_prefix(world.job))}


def stage_again(world: World) -> Manifest:
    """Delete the job, and submit its input again as one batch."""
    world.ledger.jobs.forget(world.job)
    world.store.delete(f"{world.job}/")
    later = world.manifest.created + timedelta(hours=1)
    update = {"created": later, "batch_records": [6], "batch_tokens": [72]}
    manifest = store_inputs(world.store, world.manifest.model_copy(update=update), RECORDS)
    write_manifest(world.store, manifest)
    world.ledger.jobs.create(manifest, world.manifest.batch(0).model)
    return manifest


def run_in_one_go(world: World, engine: FakeEngine) -> None:
    """Run a batch that takes less time than there is between two renewals of its lease."""
    runner = world.runner(engine)
    runner.renewer = LeaseRenewer(world.ledger, WORKER)
    assert runner.run(world.manifest.batch(0)).kind is OutcomeKind.DONE


def test_one_whose_job_was_deleted_meanwhile_leaves_nothing_of_it(world):
    """Its lease is renewed every few seconds only: until then it does not know."""

    def delete() -> None:
        world.ledger.jobs.forget(world.job)
        world.store.delete(f"{world.job}/")

    run_in_one_go(world, FakeEngine(during=delete))
    assert not list(world.store.keys(""))


def test_one_whose_job_redis_has_forgotten_meanwhile_leaves_its_shard(world):
    run_in_one_go(world, FakeEngine(during=world.ledger.redis.flushall))
    assert list(contents(world)) == [shard_key(world.job, 0, FP16)]


def test_one_that_wakes_before_it_writes_keeps_the_other_s_shard(
    world, batch, monkeypatch, another, seen
):
    once_before(monkeypatch, runner, "write_shard", another)
    world.runner().run(batch)
    assert contents(world) == seen != {}
    assert (world.progress.batches_done, world.progress.rows_by_precision) == (1, {"fp32": 4})


def test_one_that_wakes_before_it_replaces_a_damaged_shard_keeps_the_other_s(
    world, batch, monkeypatch, another, seen
):
    world.store.put(shard_key(world.job, 0, FP16), b"damaged")
    create = world.store.create

    def late_create(key: str, *, replace: bool = True) -> Any:
        if replace:
            monkeypatch.setattr(world.store, "create", create)
            another()
        return create(key, replace=replace)

    monkeypatch.setattr(world.store, "create", late_create)
    world.runner().run(batch)
    assert contents(world) == seen != {}
    assert (world.progress.batches_done, world.progress.rows_by_precision) == (1, {"fp32": 4})


def test_one_that_wakes_puts_no_row_into_quarantine_that_the_other_embedded(
    world, batch, monkeypatch, another, seen
):
    once_before(monkeypatch, runner, "result_of", another)
    world.runner(FakeEngine({3: [FP32]}, precision=FP32)).run(batch)
    assert read_quarantine(world.store, world.job, 0) == ()
    assert contents(world) == seen != {}
    assert world.progress.rows_by_precision == {"fp32": 4}


def test_a_result_that_comes_after_the_batch_was_taken_back_is_not_counted(
    world, batch, monkeypatch, another
):
    """Its shard is gone: a retry had it computed again."""
    complete = BatchRunner._complete

    def late_complete(self: BatchRunner, lease: Any, result: Any) -> None:
        monkeypatch.setattr(BatchRunner, "_complete", complete)
        another()
        assert world.ledger.results.reopen(ok(batch, precision=FP32))
        world.store.delete(shard_key(world.job, 0, FP16))
        lease.renewed_at = -math.inf
        complete(self, lease, result)

    monkeypatch.setattr(BatchRunner, "_complete", late_complete)
    world.runner().run(batch)
    assert world.progress.batches_done == 0
    assert [batch.index for batch in world.outstanding()] == [0, 1]


def test_a_shard_of_an_earlier_staging_is_neither_counted_nor_fetched_and_is_replaced(
    world, batch, monkeypatch, tmp_path
):
    """Its rows are a part of those of the batch that has its name now."""
    later: list[Manifest] = []
    once_before(monkeypatch, runner, "write_shard", lambda: later.append(stage_again(world)))
    world.runner().run(batch)
    (manifest,) = later
    key = shard_key(world.job, 0, FP16)
    assert read_label(world.store, key).records == 4
    assert world.progress.batches_done == 0
    with pytest.raises(UserError, match="it is of an earlier submission of the job"):
        fetch(world.store, manifest, tmp_path / "e.h5")
    world.runner().run(manifest.batch(0))
    assert read_label(world.store, key).created == manifest.created.timestamp()
    assert fetch(world.store, manifest, tmp_path / "e.h5").rows == 6
