"""The outcome of a batch at a worker: what became of it, in a word and in a line."""

from dataclasses import dataclass
from enum import StrEnum

from common.ledger.claims import ClaimOutcome
from common.text import counted
from common.wire.messages import BatchResult, Status


class OutcomeKind(StrEnum):
    """What became of a batch that a worker took."""

    DONE = "done"  # all its rows have numbers
    UNSTABLE = "unstable"  # some are not finite: they go on to the next rung, or to quarantine
    POISONED = "poisoned"  # some crash their worker: they go to quarantine
    FAILED = "failed"
    SKIPPED = "skipped"  # nothing was to be computed, here and now
    DROPPED = "dropped"  # its lease was lost while it was computed
    REFUSED = "refused"  # its entries in the ledger are odd: it is a dead letter
    REQUEUED = "requeued"  # its message is in its queue again


#: Why a batch is not computed that cannot be claimed.
REFUSED_CLAIMS = {
    ClaimOutcome.DONE: "it is done",
    ClaimOutcome.HELD: "lease held by another",
    ClaimOutcome.CANCELLED: "its job is cancelled",
    ClaimOutcome.STOPPED: "its job is stopped",
    ClaimOutcome.UNKNOWN: "its job is not in the ledger, or not readable there",
}

KINDS = {
    Status.OK: OutcomeKind.DONE,
    Status.NUMERICAL_INSTABILITY: OutcomeKind.UNSTABLE,
    Status.POISONED: OutcomeKind.POISONED,
    Status.FAILED: OutcomeKind.FAILED,
}


@dataclass(frozen=True)
class BatchOutcome:
    """What became of a batch, as a worker's metrics count it and Flower shows it.

    Attributes:
        detail: why, if it was not computed; the error, if it failed.
        result: that the ledger has, if there is one.
    """

    kind: OutcomeKind
    detail: str = ""
    result: BatchResult | None = None

    def __str__(self) -> str:
        if self.result is None or self.kind is OutcomeKind.FAILED:
            return f"{self.kind}: {self.detail}"
        return ", ".join(fates_of_rows(self.result))


def outcome_of(result: BatchResult) -> BatchOutcome:
    """Return the outcome of a batch that has a result."""
    return BatchOutcome(KINDS[result.status], result.error or "", result)


def refused_claim(outcome: ClaimOutcome) -> BatchOutcome:
    """Return the outcome of a batch that could not be claimed."""
    return BatchOutcome(OutcomeKind.SKIPPED, REFUSED_CLAIMS.get(outcome, outcome))


def fates_of_rows(result: BatchResult) -> list[str]:
    """Return what became of the rows: ``done 309 rows``, ``3 rows on to selective_fp32``."""
    fates = [f"done {counted(result.records, 'row')}"]
    if result.stops_job:
        fates.append(f"{counted(len(result.unstable), 'row')} not finite: job stopped")
    elif result.next is not None:
        fates.append(f"{counted(len(result.unstable), 'row')} on to {result.next}")
    if result.quarantined:
        fates.append(f"{counted(len(result.quarantined), 'row')} to quarantine")
    return fates
