"""What a worker reports of a batch, and how it says so."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.errors import UserError
from common.rungs import NEXT_RUNG
from common.wire.messages import Batch, BatchResult, Instability, Status
from workers.engine.engine import Outcome


def result_of(
    batch: Batch,
    worker: str,
    outcome: Outcome,
    poisoned: tuple[Instability, ...],
    *,
    stops_at_instability: bool,
) -> BatchResult:
    """The result of a batch that was computed, ``poisoned`` rows excepted."""
    unstable = outcome.unstable
    status = Status.POISONED if poisoned else Status.OK
    return BatchResult(
        **place(batch, worker),
        status=Status.NUMERICAL_INSTABILITY if unstable else status,
        precision=outcome.precision,
        records=len(outcome.embeddings),
        tokens=outcome.tokens,
        seconds=outcome.seconds,
        unstable=unstable,
        next=NEXT_RUNG[outcome.precision] if unstable else None,
        poisoned=poisoned,
        stops_job=bool(unstable) and stops_at_instability,
    )


def failure_of(batch: Batch, worker: str, error: Exception) -> BatchResult:
    """The result of a batch that is given up."""
    # What was written for the user speaks for itself.
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return BatchResult(**place(batch, worker), status=Status.FAILED, error=text)


def place(batch: Batch, worker: str) -> dict[str, Any]:
    """What every result of a batch has."""
    fields = {"job", "index", "rung", "previous_rung", "created"}
    return {**batch.model_dump(include=fields), "worker": worker}


def counted_rows(rows: Sequence[Instability]) -> str:
    """How many rows, and which is the first."""
    more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
    return f"{rows[0]}{more}"


def summary(result: BatchResult) -> str:
    if result.status is Status.FAILED:
        return f"failed, {result.error}"
    unstable = ""
    if result.unstable:
        where = "quarantined" if result.next is None else f"retried in {result.next}"
        unstable = f", {len(result.unstable):,} not finite: {where}"
    return (
        f"{result.records:,} sequences in {result.precision}, {result.tokens:,} tokens in "
        f"{result.seconds:.2f} s{unstable}"
    )


def with_history(
    unstable: Iterable[Instability], earlier: Mapping[int, Instability]
) -> tuple[Instability, ...]:
    """What was seen of each row, at earlier rungs too."""
    return tuple(
        bad.model_copy(update={"seen": earlier[bad.row].seen | bad.seen})
        if bad.row in earlier
        else bad
        for bad in unstable
    )
