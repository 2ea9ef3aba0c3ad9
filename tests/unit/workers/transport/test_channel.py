"""A worker's channel: what it requeues is there once, however busy the fleet is."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from celery.worker import state
from kombu import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.wire.celery_app import make_celery, publish
from common.wire.dead_letters import DeadLetters
from common.wire.queues import KEY_PREFIX, queue_name
from common.wire.redis_client import connect
from common.wire.signing import MessageKeys
from tests.support.busy import UNACKED, busy_fleet
from tests.support.jobs import manifest_of
from tests.support.messages import with_batch
from tests.support.redis_servers import running_redis
from workers.transport.channel import WorkerChannel
from workers.transport.guard import Guard, install_guard

MANIFEST = manifest_of([1] * 40)
BATCHES = [MANIFEST.batch(number) for number in range(MANIFEST.batches)]
MODEL = ModelSource.parse(MANIFEST.model)
QUEUE = queue_name(MODEL, BATCHES[0].first_rung, BATCHES[0].rung)
UNACKED_INDEX = f"{KEY_PREFIX}unacked_index"


@pytest.fixture
def connection(redis, redis_url) -> Iterator[Connection]:
    app = make_celery(redis_url, [QUEUE])
    install_guard(app, Guard(Ledger(redis), MessageKeys(), "w"))
    with app.connection_for_read() as connection:
        yield connection


@pytest.fixture
def channel(connection) -> WorkerChannel:
    return connection.channel()


@pytest.fixture
def taken(channel, redis_url) -> list[str]:
    """Tags of messages that the channel has taken and not acknowledged."""
    publish(make_celery(redis_url, []), MODEL, BATCHES)
    tags = [channel.basic_get(QUEUE).delivery_tag for _ in BATCHES]
    channel.qos.restore_at_shutdown = False  # each test does so itself
    return tags


def queued(redis) -> list[dict]:
    return [json.loads(item) for item in redis.lrange(f"{KEY_PREFIX}{QUEUE}", 0, -1)]


def tags_of(messages) -> list[str]:
    return [message["properties"]["delivery_tag"] for message in messages]


def test_40_messages_are_requeued_within_a_second_while_others_take_and_acknowledge_theirs(
    redis, channel, taken
):
    with busy_fleet(redis):
        began = time.monotonic()
        for tag in taken:
            channel.basic_reject(tag, requeue=True)
        assert time.monotonic() - began < 1
    assert sorted(tags_of(queued(redis))) == sorted(taken)
    for message in queued(redis):
        assert message["headers"]["redelivered"]
        assert message["properties"]["delivery_info"]["redelivered"]
    assert not redis.exists(UNACKED, UNACKED_INDEX)


def test_what_two_requeue_at_once_is_queued_once(redis, connection, channel, taken):
    together = threading.Barrier(2)

    def requeue(channel: WorkerChannel) -> None:
        for tag in taken:
            together.wait(10)
            channel.qos.restore_by_tag(tag)

    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        other = stack.enter_context(connection.channel())
        list(pool.map(requeue, (channel, other)))
    assert sorted(tags_of(queued(redis))) == sorted(taken)
    assert not redis.exists(UNACKED, UNACKED_INDEX)


def test_an_acknowledged_message_does_not_come_back(redis, channel, taken):
    channel.basic_ack(taken[0])
    channel.qos.restore_by_tag(taken[0])
    assert queued(redis) == []


def test_a_refused_message_is_the_last_to_be_taken_and_a_lost_one_the_next(redis, channel, taken):
    first, second, third = taken[:3]
    channel.qos.restore_by_tag(second)
    channel.qos.restore_by_tag(first)
    channel.basic_reject(third, requeue=True)
    assert tags_of(queued(redis)) == [third, second, first]  # taken from its end


def test_a_message_that_an_ending_worker_refuses_is_the_next_to_be_taken(
    redis, channel, taken, monkeypatch
):
    channel.basic_reject(taken[0], requeue=True)
    monkeypatch.setattr(state, "should_stop", 0)  # the exit code, as Celery sets it at SIGTERM
    channel.basic_reject(taken[1], requeue=True)
    assert tags_of(queued(redis)) == taken[:2]  # taken from its end


def test_all_that_a_channel_has_is_requeued_when_it_is_closed(redis, channel, taken):
    channel.qos.restore_at_shutdown = True
    channel.close()
    assert sorted(tags_of(queued(redis))) == sorted(taken)


def test_messages_whose_time_is_up_are_requeued(redis, channel, taken):
    redis.zadd(UNACKED_INDEX, dict.fromkeys(taken[:5], 1))
    channel.qos.restore_visible(num=200)
    assert sorted(tags_of(queued(redis))) == sorted(taken[:5])
    assert sorted(redis.hkeys(UNACKED)) == sorted(taken[5:])
    assert sorted(redis.zrange(UNACKED_INDEX, 0, -1)) == sorted(taken[5:])


def test_a_channel_has_one_client_until_its_connections_are_closed(channel):
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
    channel._disconnect_pools()
    with channel.conn_or_acquire() as third:
        assert third is not first
        assert third.ping()


@pytest.mark.parametrize("end", [Connection.collect, Connection.release])
def test_a_channel_says_that_its_connection_was_closed(connection, channel, end):
    """By the error at which Celery connects again: at others its worker ends."""
    end(connection)
    with pytest.raises(RedisConnectionError, match="was closed"), channel.conn_or_acquire():
        pass
    with pytest.raises(RedisConnectionError, match="was closed"):
        assert channel.async_pool


def test_a_crash_of_redis_while_channels_wait_and_work_is_an_error_that_celery_knows(tmp_path):
    with running_redis(tmp_path) as server:
        app = make_celery(server.url, [])
        install_guard(app, Guard(Ledger(connect(server.url)), MessageKeys(), "w"))
        publish(app, MODEL, BATCHES[:2])
        connection = app.connection_for_read()
        first, second = connection.default_channel, connection.channel()
        messages = [first.basic_get(QUEUE), second.basic_get(QUEUE)]
        first.basic_consume(QUEUE, no_ack=False, callback=messages.append, consumer_tag="c")
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.1)
        server.kill()
        connection.collect()  # can close neither: one waits, and the other cannot requeue
        assert not first.closed
        connection.close()
        for message in messages:
            with pytest.raises(RedisConnectionError):
                message.ack()


# --- what is no message ---------------------------------------------------------------------------

GARBAGE = [
    b"garbage",
    b"[]",
    b"5",
    b"[[], 1, 2]",
    b'[{"headers": 5}, "", "q"]',
    b'["\xff", "", ""]',
    b"[" * 3000,
]


def test_what_is_taken_and_no_message_is_buried_and_others_are_requeued(redis, redis_url, channel):
    publish(make_celery(redis_url, []), MODEL, BATCHES[:1])
    assert channel.basic_get(QUEUE) is not None
    for number, garbage in enumerate(GARBAGE):
        redis.hset(UNACKED, f"tag{number}", garbage)
    tags = dict.fromkeys(redis.hkeys(UNACKED), 1.0) | {"no such message": 1.0}
    redis.zadd(UNACKED_INDEX, tags)
    channel.qos.visibility_timeout = 0
    for _ in range(3):
        channel.qos.restore_visible(num=100, interval=1)
    assert not redis.exists(UNACKED, UNACKED_INDEX)
    assert redis.llen(f"{KEY_PREFIX}{QUEUE}") == 1
    letters = DeadLetters(redis).latest()
    assert {letter.queue for letter in letters} == {"unacknowledged messages"}
    assert len(letters) == len(GARBAGE)


def of_another_version(taken: bytes, **values: object) -> bytes:
    message, exchange, queue = json.loads(taken)
    changed = with_batch(json.dumps(message).encode(), **values)
    return json.dumps([json.loads(changed), exchange, queue]).encode()


@pytest.mark.parametrize(
    "values", [{"rung": "fp4"}, {"model": "esm4_t99"}, {"version": 2}, {"note": "x" * 790_000}]
)
def test_what_only_a_newer_version_can_read_is_requeued(redis, redis_url, channel, values):
    publish(make_celery(redis_url, []), MODEL, BATCHES[:1])
    tag = channel.basic_get(QUEUE).delivery_tag
    changed = of_another_version(redis.hget(UNACKED, tag), **values)
    redis.hset(UNACKED, tag, changed)
    channel.qos.restore_by_tag(tag)
    assert [message["body"] for message in queued(redis)] == [json.loads(changed)[0]["body"]]
    assert not redis.exists(UNACKED, UNACKED_INDEX)
    assert DeadLetters(redis).count() == 0


@pytest.mark.parametrize("queue", ["unacked", "_kombu.binding.a", "job:x:leases", "", 5])
def test_what_was_taken_from_no_queue_is_buried(redis, redis_url, channel, queue):
    publish(make_celery(redis_url, []), MODEL, BATCHES[:1])
    tag = channel.basic_get(QUEUE).delivery_tag
    message, exchange, _ = json.loads(redis.hget(UNACKED, tag))
    message["properties"]["delivery_info"]["routing_key"] = queue
    redis.hset(UNACKED, tag, json.dumps([message, exchange, queue]))
    channel.qos.restore_by_tag(tag)
    assert not redis.exists(UNACKED, UNACKED_INDEX)
    assert DeadLetters(redis).count() == 1


@pytest.mark.parametrize("milliseconds", [None, 10**9])
def test_a_lock_that_does_not_expire_is_deleted(redis, channel, milliseconds):
    redis.set(f"{KEY_PREFIX}unacked_mutex", "x", px=milliseconds)
    channel.qos.restore_visible(num=10, interval=1)
    assert not redis.exists(f"{KEY_PREFIX}unacked_mutex")
    assert DeadLetters(redis).count() == 1


def test_a_lock_that_another_worker_holds_is_left_to_it(redis, channel):
    redis.set(f"{KEY_PREFIX}unacked_mutex", "x", px=20_000)
    channel.qos.restore_visible(num=10, interval=1)
    assert redis.exists(f"{KEY_PREFIX}unacked_mutex")
    assert DeadLetters(redis).count() == 0


def test_what_is_no_binding_of_a_queue_is_buried(redis, channel):
    key = f"{KEY_PREFIX}_kombu.binding.reply.celery.pidbox"
    redis.sadd(key, "a::q", "garbage", b"\xff", "a:b:c:d")
    assert channel.get_table("reply.celery.pidbox") == [("a", "", "q")]
    assert redis.smembers(key) == {"a::q"}
    assert DeadLetters(redis).count() == 3
