"""Celery's remote control, of which a worker answers questions and obeys no orders.

Whoever reaches Redis can broadcast a command: one order ends all workers, another has them take
nothing more while they look alive. And Celery ends at a broadcast that it cannot read. Flower and
``celery control`` get no answer to an order, and say so after a second.
"""

import functools
from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any, Literal

from celery.worker.control import Panel
from pydantic import BeforeValidator, Field, JsonValue, ValidationError
from pydantic_core import to_json

from common.text import without_login
from common.wire.messages import Document
from workers.transport.envelope import Refusal, first_problem, parse_body, parse_json

#: The questions that a worker answers, and two orders that change nothing, which Flower repeats
#: every few seconds. ``hello`` is no question: it revokes tasks.
QUESTIONS = frozenset(
    {
        *("ping", "clock", "stats", "conf", "report", "registered", "active_queues"),
        *("active", "reserved", "scheduled", "revoked", "query_task"),
        *("dump_active", "dump_reserved", "dump_schedule", "dump_revoked", "dump_conf"),
        *("dump_tasks", "enable_events", "heartbeat"),
    }
)

#: The fields of a connection in the answer to ``stats``.
LOGIN_FIELDS = frozenset({"userid", "password"})


class ReplyTo(Document):
    """The queue to which an answer goes."""

    exchange: Literal["reply.celery.pidbox"]
    routing_key: str


class Command(Document):
    """The body of a broadcast."""

    method: str
    arguments: dict[str, JsonValue] | None = None
    destination: list[str] | None = None
    pattern: str | None = None
    # Celery also takes regular expressions, which may keep a worker busy for ever.
    matcher: Literal["glob"] | None = None
    reply_to: ReplyTo | None = None
    ticket: str | None = None


class Properties(Document):
    """What kombu needs to deliver a broadcast."""

    body_encoding: Literal["base64"]
    delivery_tag: str


class Broadcast(Document):
    """A broadcast, as kombu writes it around a command."""

    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    properties: Properties
    body: Annotated[Command, BeforeValidator(parse_body)]


def check_broadcast(data: bytes) -> bytes | Refusal:
    """Return a copy of a broadcast with nothing in it but what was checked, or why it is not valid.

    Never raises.
    """
    try:
        broadcast = Broadcast.model_validate(parse_json(data))
    except ValidationError as error:
        return Refusal(f"not a command of Celery's remote control: {first_problem(error)}")
    except ValueError as error:
        return Refusal(str(error))
    command = broadcast.body
    if command.method not in QUESTIONS:
        return Refusal(f"the command {command.method!r}, which workers do not obey")
    return to_json(rebuilt(broadcast, command))


def rebuilt(broadcast: Broadcast, command: Command) -> dict[str, Any]:
    return {
        "content-type": broadcast.content_type,
        "content-encoding": broadcast.content_encoding,
        "headers": {},
        "properties": {**broadcast.properties.model_dump(), "delivery_info": {}, "priority": 0},
        "body": b64encode(to_json(command)).decode(),
    }


def answer_questions_only() -> None:
    """Remove every command but the questions from Celery's remote control, for this process, and
    the login of Redis from the answers.
    """
    for name in Panel.data.keys() - QUESTIONS:
        del Panel.data[name]
    for name, answer in Panel.data.items():
        Panel.data[name] = answers_without_login(answer)


def answers_without_login(answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)
    def shown(*words: Any, **options: Any) -> Any:
        return hide_login(answer(*words, **options))

    return shown


def hide_login(answer: Any) -> Any:
    """Return an answer without the user and password of its URLs, and of its connection."""
    if isinstance(answer, str):
        return without_login(answer)
    if isinstance(answer, dict):
        return {
            name: "***" if name in LOGIN_FIELDS and value else hide_login(value)
            for name, value in answer.items()
        }
    return [hide_login(item) for item in answer] if isinstance(answer, list | tuple) else answer
