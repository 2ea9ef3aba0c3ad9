"""Events: failures and what was done about them, in the ledger and as JSON in the log."""

import logging
import math
import time
from enum import StrEnum
from typing import cast

from pydantic import Field, NonNegativeInt
from redis import Redis

from common.ledger.keys import job_key
from common.rungs import Rung
from common.wire.messages import Document
from common.wire.redis_client import append_capped, redis_time

#: Events kept for each job; older ones are in the logs alone.
EVENTS_KEPT = 1000


#: How the detail of a ``REQUEUED`` event begins if the store failed. Versions that know no other
#: cause begin it so too, and know no other kinds of events.
STORE_FAILED = "attempt "


class EventKind(StrEnum):
    """The kind of an event."""

    LEASE_LOST = "lease_lost"  # a worker disappeared; its batch is requeued
    MESSAGE_LOST = "message_lost"  # of a batch without queue, lease or result: published again
    REQUEUED = "given_back"  # a batch requeued by its worker; its store failed: see STORE_FAILED
    RETRY = "retry"  # rows are retried at the next rung
    QUARANTINE = "quarantine"  # rows that no rung could embed
    FAILED = "failed"  # a batch that no longer is retried
    DEAD_LETTER = "dead_letter"  # a message that is not a batch of this fleet
    UNREADABLE = "unreadable"  # an event of a newer version; never written


class Event(Document):
    """One event of a job or of the fleet."""

    time: float = Field(default_factory=time.time)
    event: EventKind
    job: str | None = None
    batch: NonNegativeInt | None = None
    rung: Rung | None = None
    worker: str | None = None  # the one concerned, if any
    detail: str = ""


def log_event(log: logging.Logger, event: Event) -> None:
    """Write an event to the log: in text as one line of JSON, in JSON as fields of the line."""
    fields = event.model_dump(mode="json", exclude_none=True, exclude={"time", "detail"})
    summary = f"{event.event}: {event.detail}"
    text = event.model_dump_json(exclude_none=True)
    log.warning("%s", text, extra={**fields, "summary": summary})


class Events:
    """The events of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def now(self) -> float:
        """Return Redis's time, in seconds since the epoch."""
        return redis_time(self.redis).timestamp()

    def add(self, event: Event) -> None:
        """Add an event to its job's list."""
        append_capped(self.redis, f"{job_key(event.job or '')}:events", event, EVENTS_KEPT)

    def latest(self, job: str, count: int = EVENTS_KEPT) -> list[Event]:
        """Return a job's latest events, newest first; of one of a newer version, its text."""
        texts = self.redis.lrange(f"{job_key(job)}:events", 0, count - 1)
        return [read_event(text) for text in cast(list[str], texts)]

    def count(self, job: str) -> int:
        """Return how many of a job's events are kept."""
        return int(self.redis.llen(f"{job_key(job)}:events"))


def read_event(text: str) -> Event:
    try:
        return Event.model_validate_json(text)
    except ValueError:
        return Event(time=math.nan, event=EventKind.UNREADABLE, detail=text)
