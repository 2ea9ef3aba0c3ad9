"""The guard at a worker's queues: what is no task of ours is taken out before Celery sees it.

Celery on Redis ends at a message that it cannot parse, and puts it back for the next worker to end
at; an odd header takes one of its threads for ever, another has it wait for hours or send tasks.
So every message is looked at when it comes out of its list. What is no batch of ours goes to the
ledger's dead letters; of what is, Celery gets a copy with nothing in it but what was understood.
"""

import functools
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from celery import Celery
from kombu import Connection
from kombu.transport import redis as kombu_redis
from kombu.utils.json import loads
from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, ValidationError
from pydantic_core import from_json, to_json
from redis.exceptions import RedisError

from common.ledger.events import Event, EventKind, log_event
from common.ledger.ledger import Ledger
from common.wire.celery_app import EMBED_TASK
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.messages import Batch, Document
from common.wire.queues import batch_queue
from common.wire.signing import MessageKeys
from workers.transport.channel import WorkerChannel

log = logging.getLogger(__name__)

#: Bytes of a message that are kept for people, and characters of a value that are quoted.
BYTES_KEPT = 2000
CHARACTERS_QUOTED = 60

#: Arguments without a name, those with one, and what Celery is to do afterwards.
Body = tuple[tuple[()], dict[str, JsonValue], Any]


class Headers(Document):
    task: Literal[EMBED_TASK]  # type: ignore[valid-type]
    id: str
    argsrepr: str = ""  # for people, in Celery's log and events
    kwargsrepr: str = ""
    signature: str | None = None


class Place(Document):
    """The queue that a message goes back to if it is not done: named without an exchange."""

    exchange: Literal[""]
    routing_key: str


class Properties(Document):
    body_encoding: Literal["base64"]
    delivery_tag: str
    delivery_info: Place
    priority: Literal[0] = 0


def parse_json(text: bytes) -> Any:
    """JSON as Celery reads it.

    Raises:
        ValueError: no JSON, or with a text in it that could not be written again.
    """
    try:
        from_json(text)  # stricter than Python's: half a surrogate pair is no text
        return loads(text.decode())
    except Exception as error:  # nested too deeply, or one of the objects that kombu makes of JSON
        raise ValueError(f"not JSON: {error or type(error).__name__}") from error


def parse_body(body: object) -> Any:
    if not isinstance(body, str):
        raise ValueError("not a text")
    return parse_json(b64decode(body, validate=True))


def write_body(body: Body) -> str:
    return b64encode(to_json(([], body[1], {}))).decode()


class Envelope(Document):
    """A message in Redis, as kombu writes it around Celery's task."""

    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: Headers
    properties: Properties
    body: Annotated[Body, BeforeValidator(parse_body), PlainSerializer(write_body)]


@dataclass(frozen=True)
class Refusal:
    """Why a message is none of ours, and the batch that it says it is, if it says so."""

    reason: str
    batch: Batch | None = None


def judge(item: bytes, keys: MessageKeys, queue: str | None = None) -> bytes | Refusal:
    """The message that Celery is to have in place of one, or why it is to have none. Never raises.

    Args:
        item: as it lies in the queue.
        keys: that verify its signature; without any, signatures are not looked at.
        queue: that it lay in, and may go back to; None: any.
    """
    try:
        envelope = Envelope.model_validate(parse_json(item))
    except ValidationError as error:
        return Refusal(f"not a task of this fleet: {first_problem(error)}")
    except ValueError as error:
        return Refusal(str(error))
    message = envelope.body[1]
    try:
        batch = Batch.model_validate(message)
    except ValidationError as error:
        return Refusal(f"not a batch that this version knows: {first_problem(error)}")
    signature = envelope.headers.signature
    if keys and signature is None:
        return Refusal("not signed: VIRNUCPRO_MESSAGE_KEY is not set where it was sent", batch)
    if keys and signature is not None and not keys.verify(message, signature):
        return Refusal(
            "its signature is wrong: VIRNUCPRO_MESSAGE_KEY is another one where it was sent, or it "
            "was changed on its way",
            batch,
        )
    place = envelope.properties.delivery_info.routing_key
    if queue is not None and not queue == place == batch_queue(batch):
        return Refusal(f"for {batch_queue(batch)}, and would go back to {place}", batch)
    return envelope.model_dump_json(by_alias=True).encode()


def first_problem(error: ValidationError) -> str:
    """Where the first thing is that is wrong, what stands there, and what should."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"])) or "it"
    if problem["type"] == "missing":
        return f"{where} is missing"
    found = repr(problem["input"])
    if len(found) > CHARACTERS_QUOTED:
        found = f"{found[:CHARACTERS_QUOTED]}…"
    if problem["type"] == "model_type":
        return f"{where} is {found}, which is no JSON object"
    return f"{where} is {found}: {problem['msg'].removeprefix('Value error, ')}"


class Guard:
    """Decides what one worker's Celery gets to see."""

    def __init__(self, ledger: Ledger, keys: MessageKeys, worker: str) -> None:
        self.ledger = ledger
        self.keys = keys
        self.worker = worker

    def check(self, queue: bytes, item: bytes) -> bytes | None:
        """What Celery is to have of a message that was taken from a queue; the rest is buried."""
        verdict = judge(item, self.keys, queue.decode())
        if isinstance(verdict, Refusal):
            self._bury(queue.decode(), item, verdict)
            return None
        return verdict

    def _bury(self, queue: str, item: bytes, refusal: Refusal) -> None:
        reason, batch = printable(refusal.reason), refusal.batch
        about: dict[str, Any] = (
            {} if batch is None else {"job": batch.job, "batch": batch.index, "rung": batch.rung}
        )
        detail = f"in {queue}: {reason}"
        event = Event(event=EventKind.DEAD_LETTER, worker=self.worker, detail=detail, **about)
        log_event(log, event)
        message = printable(item[:BYTES_KEPT].decode(errors="backslashreplace"))
        letter = DeadLetter(queue=queue, worker=self.worker, reason=reason, message=message)
        try:
            DeadLetters(self.ledger.redis).add(letter)
        except RedisError as error:
            log.error("Redis failed (%s); here alone is: %s", error, letter.model_dump_json())


def printable(text: str) -> str:
    """A stranger's text as a line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def place_guard(app: Celery, check: Callable[[bytes, bytes], bytes | None]) -> None:
    """Have the app's consumer get what ``check(queue, item)`` makes of a message, if anything.

    Remote control and events are not asked about: they do not come through queues.
    """

    class GuardedClient(kombu_redis.PrefixedStrictRedis):
        def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
            response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
            if command_name != "BRPOP" or not response:
                return response
            queue, item = response
            checked = check(queue, item)
            return checked and (queue, checked)  # None: as if all queues had been empty

    class GuardedChannel(WorkerChannel):
        def _get_client(self) -> Callable[..., GuardedClient]:
            return functools.partial(GuardedClient, global_keyprefix=self.global_keyprefix)

    class GuardedTransport(kombu_redis.Transport):
        Channel = GuardedChannel

    class GuardedConnection(Connection):
        def get_transport_cls(self) -> type[GuardedTransport]:
            return GuardedTransport  # whatever kind of Redis URL it is

    app.amqp.Connection = GuardedConnection
