"""A worker's connection to Redis through kombu, with cheaper requests and atomic requeues."""

import re
from typing import Any

from celery.worker import state
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from pydantic import JsonValue
from redis.exceptions import ConnectionError as RedisConnectionError

from common.wire.messages import Document
from workers.transport import consumer
from workers.transport.envelope import LONGEST, Properties, Refusal, parse_json

#: The Lua script that requeues a message, unless it was requeued or acknowledged meanwhile.
REQUEUE = """
local unacked, taken_at = KEYS[1], KEYS[2]
local tag, push, message = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HEXISTS', unacked, tag) == 0 then return end
for queue = 3, #KEYS do redis.call(push, KEYS[queue], message) end
redis.call('HDEL', unacked, tag)
redis.call('ZREM', taken_at, tag)
"""

#: Bytes of the longest message that was taken: kombu escapes the letters outside ASCII.
LONGEST_TAKEN = 4 * LONGEST

#: The name of a queue of batches, of this version or a newer one.
QUEUE = re.compile(r"[a-zA-Z0-9][\w.-]*\.[\w.-]+", re.ASCII)


class Taken(Document):
    """What kombu needs to requeue a message."""

    headers: dict[str, JsonValue]
    properties: Properties


class AtomicQoS(kombu_redis.QoS):
    """Requeues a message in one step.

    Kombu does so in a transaction that starts over whenever a worker takes or acknowledges another
    message: in a busy fleet it never ends.
    """

    def can_consume(self) -> bool:
        """Return whether the worker has room for a message; kombu asks in each turn of its loop.

        Celery's ``worker_disable_prefetch`` counts the same tasks, but a full worker then asks
        nothing of this method.
        """
        has_thread = len(state.reserved_requests) < consumer.THREADS
        has_room = has_thread and bool(super().can_consume())  # type: ignore[no-untyped-call]
        if not has_room:
            self.channel.note_turn()
        return has_room

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Requeue a message that was taken and not acknowledged.

        Args:
            leftmost: to be taken last, as it was refused; but next if the worker ends.
        """
        channel = self.channel
        with channel.conn_or_acquire(client) as client:
            taken = client.hget(self.unacked_key, tag)
            if taken is None:
                client.zrem(self.unacked_index_key, tag)
                return
            checked = check_taken(taken)
            if isinstance(checked, Refusal):
                channel.bury("unacknowledged messages", taken, checked)
                client.hdel(self.unacked_key, tag)
                client.zrem(self.unacked_index_key, tag)
                return
            message, exchange, routing_key = checked
            message["headers"]["redelivered"] = True
            message["properties"]["delivery_info"]["redelivered"] = True
            priority = channel._get_message_priority(message)
            queues = [
                channel._q_for_pri(queue, priority)
                for queue in channel._lookup(exchange, routing_key)
            ]
            keys = [
                f"{channel.global_keyprefix}{key}"  # the client adds no prefix for EVAL
                for key in (self.unacked_key, self.unacked_index_key, *queues)
            ]
            # The back of a long queue would be far from running elsewhere soon.
            push = "LPUSH" if leftmost and not is_ending() else "RPUSH"
            client.eval(REQUEUE, len(keys), *keys, tag, push, dumps(message))

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Requeue messages that were taken long ago, unless another worker does."""
        channel, longest = self.channel, 1000 * self.unacked_mutex_expire
        key = f"{channel.global_keyprefix}{self.unacked_mutex_key}"
        with channel.conn_or_acquire() as client:
            client.hlen(self.unacked_key)  # meets a key of the wrong type before keepers need it
            left = client.pttl(key)
            if left == -1 or left > longest:  # no worker made it, and none could take it again
                client.delete(self.unacked_mutex_key)
                channel.bury(key, b"", Refusal("a lock that does not expire: it was deleted"))
        super().restore_visible(start, num, interval)  # type: ignore[no-untyped-call]


def check_taken(taken: bytes) -> tuple[dict[str, Any], str, str] | Refusal:
    """Return a message that was taken, its exchange and its routing key, or why it has none.

    What is in it is checked when it is taken again, perhaps by a worker of a newer version.
    """
    try:
        message, exchange, routing_key = parse_json(taken, LONGEST_TAKEN)
        where = Taken.model_validate(message).properties.delivery_info
    except (TypeError, ValueError) as error:
        return Refusal(f"not a message that was taken: {error}")
    own = (where.exchange, where.routing_key) == (exchange, routing_key)
    if not own or not QUEUE.fullmatch(routing_key):
        return Refusal(f"taken from {exchange!r}, {routing_key!r}, which is no queue")
    return message, exchange, routing_key


def is_ending() -> bool:
    """Return whether Celery was told to stop."""
    ends = (state.should_stop, state.should_terminate)  # exit codes, 0 too, once it was
    return any(end is not None and end is not False for end in ends)


def is_binding(entry: bytes, separator: str) -> bool:
    """Whether an entry of an exchange's set is as kombu writes it: routing key, pattern, queue."""
    try:
        return entry.decode().count(separator) == 2
    except UnicodeDecodeError:
        return False


class WorkerChannel(kombu_redis.Channel):
    """Uses one client for all requests.

    Kombu makes a new one, with a connection from the pool, to take a message, to acknowledge it and
    to send its events: a quarter of the cost of a batch around the model.
    """

    QoS = AtomicQoS
    _one_client: Any = None

    def bury(self, place: str, item: bytes, refusal: Refusal) -> None:
        """Set a message aside that is not valid."""
        raise NotImplementedError

    def note_turn(self) -> None:
        """Note that the worker looked for messages, or has no room for any."""
        raise NotImplementedError

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        """Return the queues of an exchange, without entries that kombu could not read."""
        key = self.keyprefix_queue % exchange
        for entry in self.client.smembers(key):
            if not is_binding(entry, self.sep):
                self.bury(key, entry, Refusal("not the binding of a queue"))
                self.client.srem(key, entry)
        return super().get_table(exchange)  # type: ignore[no-untyped-call]

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        # A channel that was disconnected has another pool of connections.
        if self._one_client is None or self._one_client.connection_pool is not self.pool:
            self._one_client = super()._create_client()  # type: ignore[no-untyped-call]
        return self._one_client

    def _get_pool(self, asynchronous: bool = False) -> Any:
        # After this error Celery reconnects. Kombu's AttributeError would end the worker.
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("This channel's connection to Redis was closed.")
        return super()._get_pool(asynchronous)  # type: ignore[no-untyped-call]
