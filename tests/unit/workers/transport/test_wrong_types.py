"""A key of the wrong type is deleted and counted, and what met it goes on without it."""

from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import pytest

from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery, send
from common.wire.dead_letters import DeadLetters
from common.wire.queues import KEY_PREFIX, batch_queue
from common.wire.signing import MessageKeys
from tests.support.jobs import manifest_of
from workers.transport.channel import WorkerChannel
from workers.transport.guard import Guard, install_guard
from workers.transport.wrong_types import expected_type

MANIFEST = manifest_of([1])
BATCH = MANIFEST.batch(0)
QUEUE = batch_queue(BATCH)


@pytest.fixture
def channel(redis, redis_url) -> Iterator[WorkerChannel]:
    app = make_celery(redis_url, [QUEUE])
    install_guard(app, Guard(Ledger(redis), MessageKeys(), "w"))
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.exchange_declare("celery")
        yield channel


def take(channel: WorkerChannel) -> None:
    assert channel.basic_get(QUEUE) is None


def wait_for_one(channel: WorkerChannel) -> None:
    channel.basic_consume(QUEUE, False, lambda _: None, "tag")
    channel.connection.cycle._register_BRPOP(channel)
    with pytest.raises(Empty):
        channel._brpop_read()


def note_taken(channel: WorkerChannel) -> None:
    """Take a message, note it in both keys, and acknowledge it."""
    with channel.connection.client.clone() as other:
        send(other.Producer(), QUEUE, BATCH, MessageKeys())
    message = channel.basic_get(QUEUE)
    assert message is not None
    message.ack()


def requeue(channel: WorkerChannel) -> None:
    channel.qos.restore_by_tag("tag")


def requeue_old(channel: WorkerChannel) -> None:
    channel.qos.restore_visible(num=1, interval=1)


def bind(channel: WorkerChannel) -> None:
    channel.queue_bind("other", exchange="celery", routing_key="other")


def look_up(channel: WorkerChannel) -> None:
    bind(channel)
    assert channel.get_table("celery")


def refresh(channel: WorkerChannel) -> None:
    channel.queue_declare("expiring", arguments={"x-expires": 1000})
    channel.queue_bind("expiring", exchange="celery", routing_key="expiring")


@pytest.mark.parametrize(
    ("name", "use"),
    [
        (QUEUE, take),
        (QUEUE, wait_for_one),
        ("unacked", note_taken),
        ("unacked", requeue),
        ("unacked_index", note_taken),
        ("unacked_index", requeue_old),
        ("unacked_mutex", requeue_old),
        ("_kombu.binding.celery", bind),
        ("_kombu.binding.celery", look_up),
        ("_kombu.binding_permanent.celery", bind),
        ("_kombu.binding_deadlines", refresh),
    ],
)
@pytest.mark.parametrize("found", ["string", "stream"])
def test_a_key_of_the_wrong_type_is_deleted_and_counted(
    redis, channel, name: str, use: Callable[[WorkerChannel], Any], found: str
):
    key = f"{KEY_PREFIX}{name}"
    redis.delete(key)
    redis.set(key, "x") if found == "string" else redis.xadd(key, {"a": "b"})
    use(channel)
    assert redis.type(key) in ("none", expected_type(name))
    (letter,) = DeadLetters(redis).latest()
    assert letter.queue == key
    assert letter.reason.endswith("it was deleted")
