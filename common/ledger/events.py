"""What went wrong and was mended: kept in the ledger, and in the log as one line of JSON."""

import logging
import time
from enum import StrEnum

from pydantic import Field, NonNegativeInt

from common.rungs import Rung
from common.wire.messages import Document


class EventKind(StrEnum):
    LEASE_LOST = "lease_lost"  # a worker went away; its batch is queued again
    MESSAGE_LOST = "message_lost"  # neither queued, nor claimed, nor done: queued again
    GIVEN_BACK = "given_back"  # by a worker that could not do it: its store failed
    RETRY = "retry"  # rows go on to the next rung
    QUARANTINE = "quarantine"  # rows that are given up
    FAILED = "failed"  # a batch that is given up
    DEAD_LETTER = "dead_letter"  # a message that is none of ours


class Event(Document):
    """Something that a user or an operator may want to know of later."""

    time: float = Field(default_factory=time.time)
    event: EventKind
    job: str | None = None
    batch: NonNegativeInt | None = None
    rung: Rung | None = None
    worker: str | None = None  # who had it, or whom it happened to
    detail: str = ""


def log_event(log: logging.Logger, event: Event) -> None:
    """Write an event to the log: a line of JSON, for people and for programs."""
    log.warning("%s", event.model_dump_json(exclude_none=True))
