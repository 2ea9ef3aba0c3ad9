"""The guard under Celery, and the dead letters that it leaves."""

import json
import logging
import time
from contextlib import suppress

import pytest
from redis import Redis

from common.ledger.events import EventKind
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.wire.celery_app import make_celery, publish
from common.wire.dead_letters import DEAD_LETTERS, DeadLetters
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX, kombu_queue, queue_name
from common.wire.signing import MessageKeys
from tests.support.jobs import manifest_of
from tests.support.messages import queued_item
from workers.transport.envelope import Refusal
from workers.transport.guard import KEPT_BYTES, STEADY_SECONDS, Guard, install_guard

BATCH = manifest_of([3]).batch(0)
MODEL = ModelSource.parse(BATCH.model)
QUEUE = queue_name(MODEL, BATCH.first_rung, BATCH.rung)
NO_KEYS, KEYS, OTHERS = MessageKeys(), MessageKeys.parse("k" * 16), MessageKeys.parse("o" * 16)


@pytest.fixture
def item(redis, redis_url) -> bytes:
    """A signed message of this fleet."""
    return queued_item(redis, redis_url, BATCH, KEYS)


def test_what_is_refused_is_a_dead_letter_with_its_place_and_a_line_in_the_log(
    ledger, item, caplog
):
    guard = Guard(ledger, OTHERS, "w@host")
    assert guard.check(QUEUE.encode(), item) is None
    (letter,) = DeadLetters(ledger.redis).latest()
    assert (letter.queue, letter.worker) == (QUEUE, "w@host")
    assert letter.reason.startswith("its signature is wrong")
    assert letter.message == item.decode()
    (record,) = caplog.records
    event = json.loads(record.message)
    assert event["event"] == EventKind.DEAD_LETTER
    assert (event["job"], event["batch"], event["rung"]) == (BATCH.job, 0, "fp16")
    assert event["worker"] == "w@host"
    assert event["detail"] == f"in {QUEUE}: {letter.reason}"


def test_a_dead_letter_does_nothing_to_a_terminal_and_has_an_end(ledger):
    Guard(ledger, NO_KEYS, "w").check(b"q", b"\xff\x1b[2J" + b"x" * 10_000)
    (letter,) = DeadLetters(ledger.redis).latest()
    assert letter.message.startswith(r"\xff\x1b[2Jxxx")


def test_a_dead_letter_has_no_more_of_the_reason_either(ledger):
    Guard(ledger, NO_KEYS, "w").bury("q", b"", Refusal("x" * 10_000))
    (letter,) = DeadLetters(ledger.redis).latest()
    assert len(letter.reason) == KEPT_BYTES
    assert len(letter.message) < KEPT_BYTES + 10


def test_a_dead_letter_that_redis_does_not_take_is_in_the_log(closed_redis, caplog):
    guard = Guard(Ledger(closed_redis), NO_KEYS, "w")
    assert guard.check(b"q", b"garbage") is None
    error = caplog.records[-1]
    assert error.levelno == logging.ERROR
    assert '"message":"garbage"' in error.message


@pytest.fixture
def closed_redis(tmp_path) -> Redis:
    return Redis(unix_socket_path=str(tmp_path / "none"), decode_responses=True)


# --- under Celery -------------------------------------------------------------------------------


def test_a_consumer_gets_valid_messages_and_what_it_requeues_comes_again(redis, ledger, redis_url):
    app = make_celery(redis_url, [QUEUE], KEYS)
    install_guard(app, Guard(ledger, KEYS, "w"))
    redis.lpush(f"{KEY_PREFIX}{QUEUE}", "garbage")
    publish(app, MODEL, [BATCH])
    received = []

    def take(_, message):
        received.append(message)
        message.requeue() if len(received) == 1 else message.ack()

    with (
        app.connection_for_read() as connection,
        app.amqp.TaskConsumer(connection, callbacks=[take], auto_declare=True) as consumer,
    ):
        consumer.consume()
        while len(received) < 2:
            connection.drain_events(timeout=5)
    assert [Batch(**message.payload[1]) for message in received] == [BATCH, BATCH]
    assert [letter.message for letter in DeadLetters(ledger.redis).latest()] == ["garbage"]


@pytest.mark.parametrize(
    "url", ["redis://host:1/2", "rediss://host/0?ssl_cert_reqs=required", "unix:///run/redis.sock"]
)
def test_the_guard_stands_whatever_the_kind_of_url(url, ledger):
    app, plain = make_celery(url, []), make_celery(url, [])
    install_guard(app, Guard(ledger, NO_KEYS, "w"))
    ours, theirs = app.connection_for_read(), plain.connection_for_read()
    assert ours.get_transport_cls().Channel is not theirs.get_transport_cls().Channel
    assert ours.clone().get_transport_cls() is ours.get_transport_cls()
    assert (ours.hostname, ours.port, ours.virtual_host, ours.ssl) == (
        theirs.hostname,
        theirs.port,
        theirs.virtual_host,
        theirs.ssl,
    )


def test_dead_letters_are_counted_until_they_are_cleared(ledger):
    guard = Guard(ledger, NO_KEYS, "w")
    for number in range(3):
        guard.check(b"q", b"%d" % number)
    assert DeadLetters(ledger.redis).count() == 3
    assert [letter.message for letter in DeadLetters(ledger.redis).latest(2)] == ["2", "1"]
    DeadLetters(ledger.redis).clear()
    assert (DeadLetters(ledger.redis).count(), ledger.redis.exists(DEAD_LETTERS)) == (0, 0)


def test_a_guard_knows_when_the_worker_last_looked_for_messages(ledger, redis_url):
    app, guard = make_celery(redis_url, ["q"]), Guard(ledger, NO_KEYS, "w")
    install_guard(app, guard)
    assert guard.idle_seconds() == 0
    guard._turned_at = time.monotonic() - 100
    with app.connection_for_read() as connection:
        connection.default_channel.basic_qos(prefetch_count=1)
        with (
            connection.Consumer([kombu_queue("q")], on_message=lambda _: None),
            suppress(TimeoutError),
        ):
            connection.drain_events(timeout=2)
    assert guard.idle_seconds() < 10


def test_a_worker_without_room_is_not_idle(ledger, redis_url):
    app, guard = make_celery(redis_url, ["q"]), Guard(ledger, NO_KEYS, "w")
    install_guard(app, guard)
    with app.connection_for_read() as connection:
        qos = connection.default_channel.qos
        assert qos.can_consume()
        guard._turned_at = time.monotonic() - 100
        qos.prefetch_count = 1
        qos._delivered["tag"] = None
        assert not qos.can_consume()
        qos._delivered.clear()
    assert guard.idle_seconds() < 10


def test_looks_on_connections_that_are_lost_at_once_do_not_count(ledger):
    guard = Guard(ledger, NO_KEYS, "w")
    guard.expect_turns()
    assert not guard.has_turned
    guard.note_connection()
    guard.note_turn()
    assert guard.has_turned
    guard._turned_at = time.monotonic() - 100
    guard.note_connection()  # right after the first, which was lost
    guard.note_turn()
    assert guard.idle_seconds() >= 100
    guard._steady_from -= STEADY_SECONDS  # this one lasts
    guard.note_turn()
    assert guard.idle_seconds() < 10


def test_answers_count_while_queues_are_declared_if_the_connection_before_had_a_turn(ledger):
    guard = Guard(ledger, NO_KEYS, "w")

    def answer_counts() -> bool:
        guard._turned_at = time.monotonic() - 100
        guard.note_answer()
        return guard.idle_seconds() < 10

    assert not answer_counts()
    guard.expect_turns()
    assert answer_counts()
    guard.note_connection()
    assert answer_counts()
    guard.note_declared()
    assert not answer_counts()
    guard.note_connection()  # the one before has not looked for messages
    assert not answer_counts()
    guard.note_connection()
    guard._steady_from -= STEADY_SECONDS
    guard.note_turn()
    guard.note_connection()
    assert answer_counts()
    assert guard.has_turned
