"""What Celery's events say of a task that ended: the outcome of its batch, for Flower.

The ledger has the truth. So there is no result backend, and a batch that failed is acknowledged as
one that is done: its message must not come back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Reject
from celery.worker.request import Request

from common.text import one_line, without_login
from workers.batches.outcome import BatchOutcome, OutcomeKind

#: Characters of an outcome that an event has; its job's events and its worker's log have the rest.
SHOWN_CHARACTERS = 500


class BatchFailedError(Exception):
    """A batch failed, and the ledger has that."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class Shown:
    """A text that events have as it is: of a string, they would have the quotes too."""

    text: str

    def __repr__(self) -> str:
        return self.text


class BatchRequest(Request):  # type: ignore[misc]
    """Adds why a batch was requeued to its event; removes the traceback of a failed one, which
    leads to this module.
    """

    _changes: Mapping[str, str | None] = MappingProxyType({})

    def on_failure(self, exc_info: Any, **options: Any) -> None:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, Reject):
            requeued = BatchOutcome(OutcomeKind.REQUEUED, str(error.reason))
            self._changes = {"result": shown(requeued)}
        elif isinstance(error, BatchFailedError):
            self._changes = {"traceback": None}
        super().on_failure(exc_info, **options)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002
        super().send_event(type, **{**fields, **self._changes})


def task_result(outcome: BatchOutcome) -> Shown:
    """Return what a task returns whose batch has this outcome.

    Raises:
        BatchFailedError: it failed.
    """
    if outcome.kind is OutcomeKind.FAILED:
        raise BatchFailedError(shown(outcome))
    return Shown(shown(outcome))


def shown(outcome: BatchOutcome) -> str:
    """Return an outcome as one short line without a login."""
    text = one_line(without_login(str(outcome)))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
