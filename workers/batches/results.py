"""The result of a batch: what its worker reports to the ledger, and one line about it."""

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
    crashing: tuple[Instability, ...],
    *,
    stops_at_instability: bool,
) -> BatchResult:
    """Return the result of a batch that was computed, except for its ``crashing`` rows."""
    unstable = outcome.unstable
    status = Status.POISONED if crashing else Status.OK
    return BatchResult(
        **common_fields(batch, worker),
        status=Status.NUMERICAL_INSTABILITY if unstable else status,
        precision=outcome.precision,
        records=len(outcome.embeddings),
        tokens=outcome.tokens,
        seconds=outcome.seconds,
        unstable=unstable,
        next=NEXT_RUNG[outcome.precision] if unstable else None,
        poisoned=crashing,
        stops_job=bool(unstable) and stops_at_instability,
    )


def failure_of(batch: Batch, worker: str, error: Exception) -> BatchResult:
    """Return the result of a batch that failed."""
    return BatchResult(**common_fields(batch, worker), status=Status.FAILED, error=text_of(error))


def text_of(error: Exception) -> str:
    """Return an error's text. A UserError's is complete without the name of its class."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def common_fields(batch: Batch, worker: str) -> dict[str, Any]:
    """Return the fields that every result of a batch has."""
    fields = {"job", "index", "rung", "previous_rung", "created"}
    return {**batch.model_dump(include=fields), "worker": worker}


def counted_rows(rows: Sequence[Instability]) -> str:
    """Return a description of the first row and the number of the others."""
    more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
    return f"{rows[0]}{more}"


def summary(result: BatchResult) -> str:
    """Return a result in one line."""
    if result.status is Status.FAILED:
        return f"failed, {result.error}"
    unstable = ""
    if result.unstable:
        fate = "quarantined" if result.next is None else f"retried in {result.next}"
        unstable = f", {len(result.unstable):,} not finite: {fate}"
    return (
        f"{result.records:,} sequences in {result.precision}, {result.tokens:,} tokens in "
        f"{result.seconds:.2f} s{unstable}"
    )


def with_history(
    unstable: Iterable[Instability], earlier: Mapping[int, Instability]
) -> tuple[Instability, ...]:
    """Return unstable rows with what lower rungs saw of them."""
    return tuple(
        bad.model_copy(update={"seen": earlier[bad.row].seen | bad.seen})
        if bad.row in earlier
        else bad
        for bad in unstable
    )
