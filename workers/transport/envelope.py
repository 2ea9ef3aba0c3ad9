"""What a valid message is, from its JSON in Redis to the batch inside it."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kombu.utils.json import loads
from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, ValidationError
from pydantic_core import from_json, to_json

from common.errors import UserError
from common.wire.celery_app import EMBED_TASK, ShownBatch
from common.wire.messages import Batch, Document
from common.wire.queues import batch_queue
from common.wire.signing import MessageKeys

#: Bytes of the longest message; one of this fleet has two thousand. To parse 100 MB of lists takes
#: 17 seconds and 2.7 GB.
LONGEST = 2**20

#: Characters of a value that an error quotes.
QUOTED_CHARACTERS = 60

#: Positional arguments, keyword arguments, and the tasks that Celery sends afterwards.
Body = tuple[tuple[()], dict[str, JsonValue], Any]


class Headers(Document):
    """The headers of a task."""

    task: Literal[EMBED_TASK]  # type: ignore[valid-type]
    id: str
    argsrepr: str = ""  # these two are for people, in Celery's log and events, and not signed
    kwargsrepr: str = ""
    signature: str | None = None


class DeliveryInfo(Document):
    """The queue to which the message is requeued."""

    exchange: Literal[""]
    routing_key: str


class Properties(Document):
    """What kombu needs to deliver a message."""

    body_encoding: Literal["base64"]
    delivery_tag: str
    delivery_info: DeliveryInfo
    priority: Literal[0] = 0


def parse_json(text: bytes, longest: int = LONGEST) -> Any:
    """Parse JSON as Celery does.

    Raises:
        ValueError: the text is too long, not JSON, or has a string that could not be written again.
    """
    if len(text) > longest:
        raise ValueError(f"too long: {len(text):,} bytes")
    try:
        from_json(text)  # stricter than Python's: it rejects half of a surrogate pair
        return loads(text.decode())
    except Exception as error:  # nested too deeply, or an object that kombu decodes by itself
        raise ValueError(f"not JSON: {error or type(error).__name__}") from error


def parse_body(body: object) -> Any:
    """Parse the base64 of the body's JSON."""
    if not isinstance(body, str):
        raise ValueError("not a string")
    return parse_json(b64decode(body, validate=True))


def write_body(body: Body) -> str:
    """Return the base64 of the body's JSON, with its keyword arguments alone."""
    return b64encode(to_json(([], body[1], {}))).decode()


class Envelope(Document):
    """A message in Redis, as kombu writes it around a task."""

    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: Headers
    properties: Properties
    body: Annotated[Body, BeforeValidator(parse_body), PlainSerializer(write_body)]


@dataclass(frozen=True)
class Refusal:
    """Why a message is not valid, and the batch that it claims to be, if it can be read."""

    reason: str
    batch: Batch | None = None


def check_message(item: bytes, keys: MessageKeys, queue: str | None = None) -> bytes | Refusal:
    """Return a copy of a message with nothing in it but what was checked, or why it is not valid.

    Never raises.

    Args:
        item: the message as Redis has it.
        keys: that verify its signature; without any, signatures are not checked.
        queue: from which it was taken, and to which it may be requeued; None: any.
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
    wrong = wrong_signature(message, envelope.headers.signature, keys)
    if wrong is not None:
        return Refusal(wrong, batch)
    try:
        own_queue = batch_queue(batch)
    except UserError as error:
        return Refusal(str(error), batch)
    requeued_to = envelope.properties.delivery_info.routing_key
    if queue is not None and not queue == requeued_to == own_queue:
        return Refusal(f"for {own_queue}, and would be requeued to {requeued_to}", batch)
    shown = {"argsrepr": "", "kwargsrepr": str(ShownBatch.of(batch))}
    headers = envelope.headers.model_copy(update=shown)
    checked = envelope.model_copy(update={"headers": headers})
    return checked.model_dump_json(by_alias=True).encode()


def wrong_signature(
    message: dict[str, JsonValue], signature: str | None, keys: MessageKeys
) -> str | None:
    """Return what is wrong with the signature of a message, if anything is."""
    if not keys:
        return None
    if signature is None:
        return "not signed: VIRNUCPRO_MESSAGE_KEY is not set where it was sent"
    if not keys.verify(message, signature):
        return (
            "its signature is wrong: VIRNUCPRO_MESSAGE_KEY is another one where it was sent, or it "
            "was changed on its way"
        )
    return None


def first_problem(error: ValidationError) -> str:
    """Return the place of the first problem, the value found there, and what was expected."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"])) or "it"
    if problem["type"] == "missing":
        return f"{where} is missing"
    found = repr(problem["input"])
    if len(found) > QUOTED_CHARACTERS:
        found = f"{found[:QUOTED_CHARACTERS]}…"
    if problem["type"] == "model_type":
        return f"{where} is {found}, which is not a JSON object"
    return f"{where} is {found}: {problem['msg'].removeprefix('Value error, ')}"
