"""What went wrong and was mended: kept in the ledger, and in the log as one line of JSON."""

import logging
import time
from enum import StrEnum
from typing import cast

from pydantic import Field, NonNegativeInt
from redis import Redis

from common.ledger.keys import job_key
from common.rungs import Rung
from common.wire.messages import Document
from common.wire.redis_client import append_capped

#: Events kept for each job; older ones are in the logs alone.
EVENTS_KEPT = 1000


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


class Events:
    """The events of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def add(self, event: Event) -> None:
        """Keep an event with its job."""
        append_capped(self.redis, f"{job_key(event.job or '')}:events", event, EVENTS_KEPT)

    def latest(self, job: str, count: int = EVENTS_KEPT) -> list[Event]:
        """A job's latest events, newest first."""
        texts = self.redis.lrange(f"{job_key(job)}:events", 0, count - 1)
        return [Event.model_validate_json(text) for text in cast(list[str], texts)]

    def count(self, job: str) -> int:
        """A job's events that are kept."""
        return int(self.redis.llen(f"{job_key(job)}:events"))
