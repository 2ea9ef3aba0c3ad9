"""The guard at a worker's queues: removes messages that are not valid before Celery reads them.

On Redis, a Celery worker ends at a message that it cannot parse, and requeues it for the next one
to end at. An odd header can block one of its threads for ever, delay it for hours or have it send
tasks. So every message is checked when it is taken from its queue. One that is not valid goes to
the dead letters; of one that is, Celery gets a copy with nothing in it but what was checked.
"""

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from celery import Celery, bootsteps
from celery.worker.consumer.connection import Connection as ConsumerConnection
from celery.worker.consumer.control import Control
from celery.worker.consumer.tasks import Tasks
from kombu import Connection
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError, ResponseError

from common.ledger.events import Event, EventKind, log_event
from common.ledger.ledger import Ledger
from common.text import one_line
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.queues import KEY_PREFIX
from common.wire.signing import MessageKeys
from workers.transport.channel import WorkerChannel
from workers.transport.control import check_broadcast
from workers.transport.envelope import Refusal, check_message
from workers.transport.wrong_types import CuringClient

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds after which a connection counts as steady. Where Redis refuses something that a worker
#: needs, the connection is lost at once, time and again, perhaps after a look for messages.
STEADY_SECONDS = 5.0

#: Seconds of the longest pause before the next attempt to connect. Celery's own is 30.
LONGEST_PAUSE = 5

#: Bytes of a message, and characters of the reason, that its dead letter keeps.
KEPT_BYTES = 2000


class Guard:
    """Checks the messages of one worker, and notes when it looked for them.

    Attributes:
        has_turned: whether the worker has looked for messages, on a connection that lasts.
    """

    def __init__(self, ledger: Ledger, keys: MessageKeys, worker: str) -> None:
        self.ledger = ledger
        self.keys = keys
        self.worker = worker
        self._connected_at = self._steady_from = -math.inf
        self._turned_at: float | None = None
        self._declares = self._may_declare = False
        self.has_turned = False

    def expect_turns(self) -> None:
        """Count the seconds without a turn from now on."""
        self._turned_at = time.monotonic()
        self._declares = self._may_declare = True

    def note_connection(self) -> None:
        """Note that the worker has a new connection to its queues."""
        now = time.monotonic()
        lost_at_once = now - self._connected_at < STEADY_SECONDS
        self._connected_at, self._steady_from = now, now + lost_at_once * STEADY_SECONDS
        self._declares, self._may_declare = self._may_declare, False

    def note_answer(self) -> None:
        """Note that Redis answered a request other than a look for messages.

        While the worker declares its queues this counts as a turn: with a slow Redis it takes
        minutes. It does not on a connection that follows one without turns: where Redis refuses the
        looks, a worker declares its queues again and again.
        """
        if self._declares:
            self._turned_at = time.monotonic()

    def note_declared(self) -> None:
        """Note that the worker has declared its queues, and is to look for messages."""
        self._declares = False

    def note_turn(self) -> None:
        """Note that the worker looked for messages, or has no room for any."""
        if time.monotonic() >= self._steady_from:
            self._turned_at, self.has_turned = time.monotonic(), True
            self._may_declare = True

    def idle_seconds(self) -> float:
        """Return the seconds since the last turn, or since one is expected; 0 before."""
        return 0.0 if self._turned_at is None else time.monotonic() - self._turned_at

    def check(self, queue: bytes, item: bytes) -> bytes | None:
        """Return what Celery gets of a message from a queue; None if it became a dead letter."""
        checked = check_message(item, self.keys, queue.decode())
        if isinstance(checked, Refusal):
            self.bury(queue.decode(), item, checked)
            return None
        return checked

    def check_broadcast(self, data: bytes) -> bytes:
        """Return what Celery gets of a broadcast; nothing if it became a dead letter."""
        checked = check_broadcast(data)
        if isinstance(checked, Refusal):
            self.bury("remote control", data, checked)
            return b""
        return checked

    def bury_key(self, key: str, found: str, expected: str) -> None:
        """Add a dead letter for a key that was deleted because it had the wrong type."""
        self.bury(key, b"", Refusal(f"a {found} in place of a {expected}: it was deleted"))

    def bury(self, queue: str, item: bytes, refusal: Refusal) -> None:
        """Add a dead letter."""
        reason, batch = one_line(refusal.reason[:KEPT_BYTES]), refusal.batch
        about: dict[str, Any] = (
            {} if batch is None else {"job": batch.job, "batch": batch.index, "rung": batch.rung}
        )
        detail = f"in {queue}: {reason}"
        event = Event(event=EventKind.DEAD_LETTER, worker=self.worker, detail=detail, **about)
        log_event(log, event)
        message = one_line(item[:KEPT_BYTES].decode(errors="backslashreplace"))
        letter = DeadLetter(queue=queue, worker=self.worker, reason=reason, message=message)
        try:
            DeadLetters(self.ledger.redis).add(letter)
        except RedisError as error:
            text = letter.model_dump_json()
            log.error("Redis did not take this dead letter: %s. It is only here: %s", error, text)


def install_guard(app: Celery, guard: Guard) -> None:
    """Have the app's consumer get what the guard leaves of every message and broadcast."""

    queues = [f"{KEY_PREFIX}{queue.name}" for queue in app.conf.task_queues]

    class GuardedClient(CuringClient):
        on_deleted = staticmethod(guard.bury_key)

        def cured(self, words: Iterable[object], send: Callable[[], T]) -> T:
            answer = super().cured(words, send)
            guard.note_answer()
            return answer

        def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
            try:
                response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
            except ResponseError as error:
                if command_name == "BRPOP" and self.cure(error, queues):
                    return None  # as if all queues had been empty
                raise
            if command_name != "BRPOP":
                return response
            guard.note_turn()
            if not response:
                return response
            queue, item = response
            checked = guard.check(queue, item)
            return checked and (queue, checked)  # None: as above

    class GuardedChannel(WorkerChannel):
        def _get_client(self) -> Callable[..., GuardedClient]:
            return functools.partial(GuardedClient, global_keyprefix=self.global_keyprefix)

        def _handle_message(self, client: Any, response: Any) -> dict[str, Any]:
            payload = super()._handle_message(client, response)  # type: ignore[no-untyped-call]
            if bytes(payload["type"]).endswith(b"message"):
                payload["data"] = guard.check_broadcast(payload["data"])
            return payload

        def note_turn(self) -> None:
            guard.note_turn()

        def bury(self, place: str, item: bytes, refusal: Refusal) -> None:
            guard.bury(place, item, refusal)

    class GuardedTransport(kombu_redis.Transport):
        Channel = GuardedChannel

    class GuardedConnection(Connection):
        def get_transport_cls(self) -> type[GuardedTransport]:
            return GuardedTransport  # whatever kind of Redis URL it is

        def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
            options = {"interval_max": LONGEST_PAUSE, **options}
            return super().ensure_connection(*arguments, **options)  # type: ignore[no-untyped-call]

    class ConnectionStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = (ConsumerConnection,)

        def start(self, consumer: Any) -> None:
            guard.note_connection()

    class DeclaredStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = (Control, Tasks)  # all others come before, but for the event loop

        def start(self, consumer: Any) -> None:
            guard.note_declared()

    app.amqp.Connection = GuardedConnection
    app.steps["consumer"].update((ConnectionStep, DeclaredStep))
