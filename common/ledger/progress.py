"""A job and a worker as the ledger shows them."""

from dataclasses import dataclass
from enum import StrEnum

from common.rungs import Rung, ladder


class JobState(StrEnum):
    OPEN = "open"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # by the first instability, where the user asked for it
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A job's counters at one moment."""

    job: str
    state: JobState
    model: str
    queue: str
    created: float
    batches: int
    records: int
    tokens: int
    published: int  # the job's first batches, that were sent to the queue
    waiting: int  # of these, those that nobody has begun
    leased: int
    counts: dict[str, int]
    weights: str | None

    def count(self, name: str) -> int:
        return self.counts.get(name, 0)

    @property
    def queues(self) -> dict[Rung, str]:
        """The queues that the job's batches may be in, by rung."""
        first, *higher = ladder(Rung(self.queue.rpartition(".")[2]))
        return {first: self.queue} | {rung: f"{self.queue}.{rung}" for rung in higher}

    @property
    def batches_done(self) -> int:
        return self.count("batches_done")

    @property
    def rows_by_precision(self) -> dict[str, int]:
        rows = {str(rung): self.count(f"rows_{rung}") for rung in Rung}
        return {rung: count for rung, count in rows.items() if count}

    @property
    def rows_done(self) -> int:
        return sum(self.rows_by_precision.values())

    @property
    def finished(self) -> bool:
        return self.state is JobState.FINISHED
