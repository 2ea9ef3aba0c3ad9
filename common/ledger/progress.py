"""The progress of a job, as the ledger counts it."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from common.rungs import Rung, ladder
from common.wire.messages import Priority
from common.wire.queues import priority_of

#: What happens to a job with a row that is not finite: retry the row at the next rung, or stop.
OnInstability = Literal["retry", "fail"]


class JobState(StrEnum):
    """The state of a job in the ledger."""

    STAGING = "staging"  # open, and batches are still to follow
    OPEN = "open"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # by the first instability, where the user asked for it
    FINISHED = "finished"


#: The states in which batches are computed: all of a job's, or the first ones.
OPEN_STATES = (JobState.STAGING, JobState.OPEN)


@dataclass(frozen=True, kw_only=True, repr=False)
class Progress:
    """A job's counters at one moment."""

    job: str
    state: JobState
    model: str
    queue: str  # of the first rung
    first_rung: Rung
    created: float  # seconds since the epoch
    batches: int
    records: int  # that are computed
    tokens: int
    published: int  # batches sent to the queue, counted from the job's first
    waiting: int  # published batches that no worker has claimed yet
    leased: int
    counts: Counter[str]  # all counters of the job's hash, by their names there
    weights: str | None  # that its embeddings come from; None until the first batch is claimed
    identical: int = 0  # records beside them that are identical to one
    model_digest: str | None = None  # of the model's files, if the producer could see them
    signed_with: str | None = None  # name of the key of the last messages; None: not known
    owner: str | None = None  # who submitted it; None: not known, as in jobs of earlier versions
    input: str | None = None  # its name, likewise
    started: float | None = None  # when its first batch began, since it was opened or resumed
    ended: float | None = None  # since when it is closed; None: it is open, or that is not known
    tokens_at_start: int = 0  # tokens that were done when it started
    seen: float = 0.0  # the time of these counters; like the others, seconds since the epoch

    def __repr__(self) -> str:
        parts = [
            f"{self.job}: {self.status}",
            f"{self.batches_done:,}/{self.batches:,} batches",
            f"{self.rows_done:,}/{self.records:,} sequences",
            *([f"{self.identical:,} identical"] if self.identical else []),
            *([f"{self.rows_quarantined:,} quarantined"] if self.rows_quarantined else []),
            *([f"{self.batches_failed:,} batches failed"] if self.batches_failed else []),
        ]
        return f"Progress({', '.join(parts)})"

    def _count(self, name: str) -> int:
        return self.counts[name]

    @property
    def status(self) -> str:
        """The state as it is displayed: an open job is either queued or running."""
        if self.state is not JobState.OPEN:
            return str(self.state)
        begun = self.leased or self.waiting < self.published
        return "running" if begun or any(map(self.batches_at, Rung)) else "queued"

    @property
    def finished(self) -> bool:
        return self.state is JobState.FINISHED

    @property
    def priority(self) -> Priority:
        return priority_of(self.queue)

    @property
    def _until(self) -> float | None:
        """The job's end, or now if it is open; None: it has ended, and when is not known."""
        return self.seen if self.state in OPEN_STATES else self.ended

    @property
    def elapsed(self) -> float | None:
        """Seconds since the job was submitted, up to its end if it has ended.

        None if that is not known, as of jobs that ended under earlier versions.
        """
        return None if self._until is None else max(0.0, self._until - self.created)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second since the job started; None before any is done."""
        if self.started is None or self._until is None:
            return None
        seconds = self._until - self.started
        tokens = self.tokens_done - self.tokens_at_start
        return tokens / seconds if seconds > 0 and tokens > 0 else None

    @property
    def eta(self) -> float | None:
        """Seconds left at that speed.

        None if the job has ended, is still being staged, or has no speed yet.
        """
        speed = self.tokens_per_second
        if self.state is not JobState.OPEN or speed is None:
            return None
        return max(0, self.tokens - self.tokens_done) / speed

    def expires(self, keep: timedelta | None) -> float | None:
        """Return when the job is deleted, if closed jobs are kept for a time and it is one."""
        if keep is None or self.ended is None or self.state in OPEN_STATES:
            return None
        return self.ended + keep.total_seconds()

    @property
    def queues(self) -> dict[Rung, str]:
        """The queues that the job's batches may be in, by rung."""
        first, *higher = ladder(self.first_rung)
        return {first: self.queue} | {rung: f"{self.queue}.{rung}" for rung in higher}

    @property
    def pool(self) -> str:
        """The pool of workers that serve the job: its queue, whatever its priority."""
        return self.queue.removeprefix(f"{self.priority}.")

    @property
    def batches_done(self) -> int:
        return self._count("batches_done")

    @property
    def batches_failed(self) -> int:
        return self._count("batches_failed")

    @property
    def leases_lost(self) -> int:
        """Leases that expired, or were taken over, before their batch completed."""
        return self._count("leases_lost")

    @property
    def rows_retried(self) -> int:
        """Rows that were sent to a second rung; a third does not count them again."""
        return self._count("rows_retried")

    @property
    def rows_quarantined(self) -> int:
        return self._count("rows_quarantined")

    @property
    def tokens_done(self) -> int:
        return self._count("tokens_done")

    @property
    def device_seconds(self) -> float:
        """Seconds of forward passes on all devices together."""
        return self._count("milliseconds") / 1000

    def batches_at(self, rung: Rung) -> int:
        """Batches that have a result at a rung."""
        return self._count(f"batches_at_{rung}")

    def embedded_at(self, rung: Rung) -> int:
        """Rows that were embedded at a rung."""
        return self._count(f"embedded_at_{rung}")

    def unstable_at(self, rung: Rung) -> int:
        """Rows that were not finite at a rung."""
        return self._count(f"unstable_at_{rung}")

    @property
    def rows_by_precision(self) -> dict[str, int]:
        """Embedded rows by the precision they were computed in, without those that have none."""
        rows = {str(rung): self._count(f"rows_{rung}") for rung in Rung}
        return {rung: count for rung, count in rows.items() if count}

    @property
    def rows_done(self) -> int:
        return sum(self.rows_by_precision.values())
