"""A worker's connection to Redis through kombu, with cheaper requests and atomic requeues."""

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from pydantic_core import to_json
from redis.exceptions import ConnectionError as RedisConnectionError

from common.wire.signing import MessageKeys
from workers.transport.envelope import Refusal, check_message, parse_json

#: The Lua script that requeues a message, unless it was requeued or acknowledged meanwhile.
REQUEUE = """
local unacked, taken_at = KEYS[1], KEYS[2]
local tag, push, message = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HEXISTS', unacked, tag) == 0 then return end
for queue = 3, #KEYS do redis.call(push, KEYS[queue], message) end
redis.call('HDEL', unacked, tag)
redis.call('ZREM', taken_at, tag)
"""


class AtomicQoS(kombu_redis.QoS):
    """Requeues a message in one step.

    Kombu does so in a transaction that starts over whenever a worker takes or acknowledges another
    message: in a busy fleet it never ends.
    """

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Requeue a message that was taken and not acknowledged."""
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
            push = "LPUSH" if leftmost else "RPUSH"
            client.eval(REQUEUE, len(keys), *keys, tag, push, dumps(message))


def check_taken(taken: bytes) -> tuple[dict[str, Any], str, str] | Refusal:
    """Return a message that was taken, its exchange and its routing key, or why it is not valid.

    Its signature is checked when it is taken again.
    """
    try:
        message, exchange, routing_key = parse_json(taken)
    except (TypeError, ValueError) as error:
        return Refusal(f"not a message that was taken: {error}")
    if exchange != "" or not isinstance(routing_key, str):
        return Refusal(f"taken from {exchange!r}, {routing_key!r}, which is no queue")
    checked = check_message(to_json(message), MessageKeys(), routing_key)
    return checked if isinstance(checked, Refusal) else (message, exchange, routing_key)


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
