"""A store and a Redis that the previous version left: this version reads them and goes on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
from celery import Celery
from redis import Redis

from common.job.manifest import read_manifest
from common.ledger.claims import CrashRecord
from common.ledger.events import EventKind
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.local.embedded_redis import redis_server
from common.rungs import Rung
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX, Queues
from common.wire.redis_client import connect
from producer.output.fetch import fetch
from producer.output.verify import verify
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import model_of
from producer.scheduling.publisher import Publisher
from tests.support.messages import body_of
from tests.support.troubled_store import TroubledStore
from tests.support.worlds import FakeEngine, World

RECORDED = Path(__file__).parents[1] / "data" / "previous_version"

DONE, HALF = "done-0123456789ab", "half-0123456789ab"


@pytest.fixture
def redis_url(sockets: Path) -> Iterator[str]:
    socket = sockets / "previous.sock"
    with redis_server(socket):
        yield f"unix://{socket}?db=0"


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with connect(redis_url) as redis:
        load(redis, json.loads((RECORDED / "redis.json").read_text()))
        yield Ledger(redis)


@pytest.fixture
def app(redis_url: str) -> Celery:
    return make_celery(redis_url, [])


@pytest.fixture
def store(tmp_path: Path) -> TroubledStore:
    shutil.copytree(RECORDED / "store", tmp_path / "store")
    return TroubledStore(tmp_path / "store")


def load(redis: Redis, keys: dict[str, dict]) -> None:
    """Put the recorded keys into an empty Redis."""
    for name, key in keys.items():
        value = key["value"]
        match key["type"]:
            case "string":
                redis.set(name, value.encode("latin-1"))
            case "hash":
                redis.hset(name, mapping=value)
            case "list":
                redis.rpush(name, *value)
            case "zset":
                redis.zadd(name, value)


def next_message(ledger: Ledger, queues: dict[Rung, str]) -> Batch | None:
    """Take the next message as a worker does: from the highest rung's queue that has any."""
    for queue in reversed(queues.values()):
        if item := ledger.redis.rpop(f"{KEY_PREFIX}{queue}"):
            return Batch(**body_of(item.encode())[1])
    return None


def test_both_jobs_are_listed_and_counted(ledger):
    assert {job: state for job, (state, _) in ledger.jobs.states().items()} == {
        DONE: JobState.FINISHED,
        HALF: JobState.OPEN,
    }
    done, half = ledger.jobs.progress(DONE), ledger.jobs.progress(HALF)
    assert (done.status, half.status) == ("finished", "running")
    assert (done.batches_done, done.rows_done, done.rows_quarantined) == (2, 3, 1)
    assert (done.tokens_done, done.device_seconds) == (36, 1.0)
    assert [done.unstable_at(rung) for rung in done.queues] == [1, 1, 1]
    assert (half.batches_done, half.batches_at(Rung.FP16), half.rows_retried) == (1, 2, 1)
    assert (half.published, half.waiting, half.leased) == (5, 2, 0)
    assert half.first_rung is Rung.FP16  # which that version did not store
    lengths = {rung: Queues(ledger.redis).length(queue) for rung, queue in half.queues.items()}
    assert lengths == {Rung.FP16: 2, Rung.SELECTIVE_FP32: 1, Rung.FP32: 0}
    assert [event.event for event in ledger.events.latest(DONE)] == [
        EventKind.QUARANTINE,
        EventKind.RETRY,
        EventKind.RETRY,
    ]


def test_the_crash_record_of_a_batch_is_read(ledger, store):
    batch = read_manifest(store, HALF).batch(2)
    assert ledger.leases.crash_record(batch) == CrashRecord(
        crashes=1, current_row=4, isolated_crashes=1, suspects={4: 1}
    )


def test_a_half_done_job_goes_on_to_the_end(ledger, store, app, tmp_path):
    manifest = read_manifest(store, HALF)
    keeper = Keeper(store, ledger, Publisher(ledger, app, 1000))
    keeper.step()
    lost = ledger.events.latest(HALF)[0]
    assert (lost.event, lost.batch, lost.worker) == (EventKind.LEASE_LOST, 2, "old")

    world, engine = World(ledger, store, manifest), FakeEngine()
    while (batch := next_message(ledger, world.progress.queues)) is not None:
        world.runner(engine).run(batch)
        publish(app, model_of(manifest), world.published)
        world.published.clear()
    keeper.stop()

    computed = sorted((rung, rows) for rung, rows in engine.calls)
    assert computed == [
        (Rung.FP16, [4, 5]),
        (Rung.FP16, [6, 7]),
        (Rung.FP16, [8, 9]),
        (Rung.SELECTIVE_FP32, [3]),
    ]
    progress = world.progress
    assert (progress.status, progress.batches_done, progress.leases_lost) == ("finished", 5, 1)
    assert progress.rows_by_precision == {"fp16": 9, "selective_fp32": 1}
    assert (progress.tokens_done, progress.rows_quarantined) == (progress.tokens, 0)
    assert progress.device_seconds == 2 * 0.25 + 4 * 0.25
    assert ledger.results.all(HALF) == []
    assert verify(store, manifest) == []
    fetched = fetch(store, manifest, tmp_path / "half.h5")
    assert (fetched.rows, fetched.quarantined) == (10, [])
    assert fetched.precisions == {"fp16": 9, "selective_fp32": 1}
    with h5py.File(tmp_path / "half.h5") as file:
        assert [name.decode() for name in file["ids"]] == [f"id{row}" for row in range(10)]


def test_a_finished_job_is_fetched(store, tmp_path):
    manifest = read_manifest(store, DONE)
    assert verify(store, manifest) == []
    fetched = fetch(store, manifest, tmp_path / "done.h5")
    assert (fetched.rows, fetched.precisions) == (4, {"fp16": 3})
    assert [(row.row, row.id, list(row.seen)) for row in fetched.quarantined] == [
        (3, "id3", [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32])
    ]


def test_a_result_is_taken_back(ledger):
    (result,) = ledger.results.all(DONE)
    assert ledger.results.reopen(result)
    progress = ledger.jobs.progress(DONE)
    assert (progress.state, progress.batches_done) == (JobState.OPEN, 1)
    assert (progress.rows_quarantined, progress.unstable_at(Rung.FP32)) == (0, 0)
    assert progress.device_seconds == 1.0  # it was spent
