"""The events of a worker's batches, in its log and in the ledger."""

import logging
from contextlib import suppress

from redis.exceptions import RedisError

from common.ledger.events import Event, EventKind, Events, log_event
from common.wire.messages import Batch, BatchResult, Status
from workers.batches.results import counted_rows

log = logging.getLogger(__name__)


class BatchEvents:
    """Records events of batches under a worker's name."""

    def __init__(self, events: Events, worker: str) -> None:
        self.events = events
        self.worker = worker

    def add(self, kind: EventKind, batch: Batch, detail: str) -> None:
        """Record an event: in the log, and in the ledger if it answers."""
        event = Event(
            event=kind,
            job=batch.job,
            batch=batch.index,
            rung=batch.rung,
            worker=self.worker,
            detail=detail,
        )
        with suppress(RedisError):  # else with the time of this machine
            event = event.model_copy(update={"time": self.events.now()})
        log_event(log, event)
        with suppress(RedisError):
            self.events.add(event)

    def add_problems(self, batch: Batch, result: BatchResult) -> None:
        """Record what went wrong in a batch, if anything did."""
        if result.status is Status.FAILED:
            self.add(EventKind.FAILED, batch, result.error or "")
        if result.quarantined:
            self.add(EventKind.QUARANTINE, batch, counted_rows(result.quarantined))
        if result.unstable and result.next is not None:
            rows = counted_rows(result.unstable)
            self.add(EventKind.RETRY, batch, f"retried in {result.next}: {rows}")
