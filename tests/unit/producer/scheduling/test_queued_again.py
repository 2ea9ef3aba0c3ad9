"""A requeued batch goes to the front of its queue."""

import pytest

from common.job.manifest import Manifest, write_manifest
from common.ledger.keys import batch_field, job_key
from common.wire.celery_app import make_celery
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX
from producer.scheduling import keeper
from producer.scheduling import lost_messages as lost
from producer.scheduling.keeper import Keeper
from producer.scheduling.lost_messages import batch_key_of
from producer.scheduling.opening import job_queue, open_job
from producer.scheduling.publisher import Publisher
from tests.support.jobs import manifest_of
from tests.support.stores import folder_store


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    manifest = manifest_of([1] * 20)
    write_manifest(folder_store(tmp_path), manifest)
    return manifest


@pytest.fixture
def kept(redis_url, ledger, manifest, tmp_path, monkeypatch) -> Keeper:
    """A keeper of a job that is queued."""
    monkeypatch.setattr(keeper, "STEP_SECONDS", 0)
    monkeypatch.setattr(lost, "LOOK_SECONDS", 0)
    monkeypatch.setattr(lost, "LOOK_SHARE", 0)
    publisher = Publisher(ledger, make_celery(redis_url, []), high_water=100)
    open_job(folder_store(tmp_path), ledger, publisher, manifest)
    return Keeper(folder_store(tmp_path), ledger, publisher)


def take(redis, manifest) -> Batch:
    """Return the index of the batch that a worker gets next."""
    _, index, _ = batch_key_of(redis.rpop(f"{KEY_PREFIX}{job_queue(manifest)}").encode())
    return manifest.batch(index)


def test_a_batch_whose_lease_ran_out_is_the_next_that_is_taken(kept, manifest, ledger, redis):
    batch = take(redis, manifest)
    ledger.leases.claim(batch, owner="a", weights="w")
    leases = f"{job_key(manifest.job)}:leases"
    redis.zadd(leases, {batch_field(batch.index, batch.rung): 1})
    kept.step()
    assert take(redis, manifest) == batch


def test_a_batch_whose_message_vanished_is_the_next_that_is_taken(kept, manifest, redis):
    batch = take(redis, manifest)
    for _ in range(lost.PATIENCE):
        kept.step()
    assert take(redis, manifest) == batch
