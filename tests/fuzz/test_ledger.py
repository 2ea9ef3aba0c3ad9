"""What stands in Redis may be anything: neither a worker nor a keeper nor a listing ends by it."""

import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.job.manifest import write_manifest
from common.ledger.events import Event, EventKind
from common.ledger.keys import batch_field, job_key
from common.ledger.ledger import Ledger
from common.local.embedded_redis import redis_server
from common.store import StoreError
from common.wire.celery_app import make_celery
from common.wire.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetters
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX
from common.wire.redis_client import connect
from common.wire.signing import MessageKeys
from producer.scheduling.keeper import Keeper
from producer.scheduling.publisher import Publisher
from tests.fuzz.fuzzing import EDITS, JSON, changed, edited, fuzz
from tests.support.jobs import manifest_of, retry_after, unstable
from tests.support.messages import body_of, queued_item
from tests.support.shards import store_inputs
from tests.support.worlds import (
    BATCH_RECORDS,
    RECORDS,
    WORKER,
    FakeEngine,
    TroubledStore,
    World,
)
from workers.batches.retry_policy import RequeueError
from workers.transport.envelope import Refusal, check_message

QUEUE = "random.esm2_t6_8M_UR50D.fp16"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        socket = Path(folder, "redis.sock")
        with redis_server(socket):
            yield f"unix://{socket}?db=0"


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with connect(redis_url) as client:
        yield Ledger(client)


@pytest.fixture
def world(ledger: Ledger, tmp_path: Path) -> World:
    store = TroubledStore(tmp_path / "store")
    store.check_writable()
    manifest = store_inputs(store, manifest_of(BATCH_RECORDS), RECORDS)
    write_manifest(store, manifest)
    return World(ledger, store, manifest)


def begin_again(world: World) -> Batch:
    """Empty Redis, and open the job with a row to retry; return the batch that retries it."""
    world.ledger.redis.flushall()
    world.ledger.jobs.create(world.manifest, QUEUE)
    first = world.manifest.batch(0)
    assert world.ledger.results.complete(unstable(first))
    return retry_after(world.manifest, unstable(first))


TEXT = st.one_of(JSON.map(json.dumps), st.text(max_size=12))


@fuzz(slower=4)
@given(data=st.data())
def test_a_worker_computes_a_batch_or_leaves_it_whatever_is_written_of_it(data, world):
    """It reports a result, skips the batch, or requeues its message; the process goes on."""
    batch = begin_again(world)
    key, redis = job_key(world.job), world.ledger.redis
    result = unstable(world.manifest.batch(0)).model_dump(mode="json")
    redis.hset(
        f"{key}:results",
        batch_field(0, batch.previous_rung),
        data.draw(st.one_of(TEXT, changed(result).map(json.dumps))),
    )
    field = batch_field(0, batch.rung)
    redis.hset(f"{key}:trails", field, data.draw(TEXT))
    redis.hset(f"{key}:deaths", field, data.draw(st.sampled_from(["0", "3", "9"])))
    with suppress(RequeueError):
        world.runner(FakeEngine()).run(batch)


@fuzz(slower=2)
@given(data=st.data())
def test_a_job_of_odd_fields_is_skipped_or_requeued(data, world):
    """The state, counters and time of a job may be of a newer version, or damaged."""
    begin_again(world)
    key, redis = job_key(world.job), world.ledger.redis
    name = data.draw(st.sampled_from(sorted(redis.hkeys(key))))
    redis.hset(key, name, data.draw(TEXT))
    with suppress(RequeueError):
        world.runner(FakeEngine()).run(world.manifest.batch(1))


@fuzz()
@given(data=st.data())
def test_a_message_is_a_batch_or_a_dead_letter(data, world, redis_url):
    """What a worker gets has nothing but a batch that every part of it can read."""
    world.ledger.redis.flushall()
    item = queued_item(world.ledger.redis, redis_url, world.manifest.batch(0))
    match data.draw(st.sampled_from(["bytes", "envelope", "body"])):
        case "bytes":
            item = edited(item, data.draw(EDITS))
        case "envelope":
            item = json.dumps(data.draw(changed(json.loads(item)))).encode()
        case _:
            message = json.loads(item)
            args, batch, more = body_of(item)
            body = json.dumps([args, data.draw(changed(batch)), more])
            item = json.dumps(message | {"body": base64.b64encode(body.encode()).decode()}).encode()
    checked = check_message(item, MessageKeys(()), QUEUE)
    if isinstance(checked, Refusal):
        assert checked.reason
    else:
        assert Batch.model_validate(body_of(checked)[1]).job


@fuzz(slower=8)
@given(data=st.data())
def test_a_keeper_goes_on_whatever_is_written_of_one_job(data, world, redis_url):
    """A step ends, or fails by the store or Redis alone, for which a keeper waits."""
    begin_again(world)
    key, redis = job_key(world.job), world.ledger.redis
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["hash", "lease", "result"])):
            case "hash":
                redis.hset(
                    key, data.draw(st.sampled_from(sorted(redis.hkeys(key)))), data.draw(TEXT)
                )
            case "lease":
                redis.zadd(f"{key}:leases", {data.draw(TEXT): data.draw(st.integers(0, 2**53))})
            case _:
                redis.hset(f"{key}:results", data.draw(TEXT), data.draw(TEXT))
    keeper = Keeper(
        world.store, world.ledger, Publisher(world.ledger, make_celery(redis_url, []), 9)
    )
    with suppress(StoreError):
        keeper.step()


@fuzz()
@given(data=st.data())
def test_lists_of_the_fleet_are_read_whatever_one_entry_is(data, world):
    """Workers, events and dead letters: one that cannot be read hides no other."""
    redis = world.ledger.redis
    redis.flushall()
    event = Event(event=EventKind.RETRY, job=world.job, batch=1)
    letter = DeadLetter(queue="q", worker="w", reason="r", message="m")
    keys = (f"{KEY_PREFIX}worker:a", f"{job_key(world.job)}:events", DEAD_LETTERS)
    for entry in (WORKER, event, letter):
        text = data.draw(st.one_of(TEXT, changed(entry.model_dump(mode="json")).map(json.dumps)))
        if entry is WORKER:
            redis.set(keys[0], text)
            world.ledger.workers.announce(WORKER.model_copy(update={"name": "b"}))
        else:
            redis.rpush(keys[1 if entry is event else 2], text, entry.model_dump_json())
    assert any(worker.name == "b" for worker in world.ledger.workers.all())
    assert event in world.ledger.events.latest(world.job)
    assert letter in DeadLetters(redis).latest()
