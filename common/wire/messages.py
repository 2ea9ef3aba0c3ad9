"""What goes over the wire: a batch to a worker, its result into the ledger.

Frozen and versioned; a field is added with a default, never changed. A message is a claim check:
it says where a batch's records lie, never what they are.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from common.rungs import Rung


def renamed_field(wire_name: str, name: str, **options: Any) -> Any:
    """A field whose name in stored messages, ``wire_name``, is older than its attribute's."""
    choices = AliasChoices(wire_name, name)
    return Field(validation_alias=choices, serialization_alias=wire_name, **options)


class Document(BaseModel):
    """Never changed once it is made; a newer program may say more than an older one understands."""

    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True)


class Message(Document):
    version: Literal[1] = 1


class Priority(StrEnum):
    """Which of a model's queues a job's batches go to; workers empty them in this order."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Batch(Message):
    """Work: consecutive records of one job, to be computed at one rung.

    At a rung of the ladder above the first it is only those rows of the batch that were not
    finite ``after`` the rung before; the ledger has that result, and with it the rows.
    """

    job: str
    index: NonNegativeInt
    first_rung: Rung = renamed_field("first", "first_rung")  # where the job's ladder begins
    rung: Rung
    previous_rung: Rung | None = renamed_field("after", "previous_rung", default=None)
    model: str  # ModelSource.text
    key: str  # of the input object in the store
    records: PositiveInt  # to be computed
    priority: Priority = Priority.NORMAL
    created: float | None = None  # when the job was staged; an earlier staging's batches are stale


class Status(StrEnum):
    OK = "ok"
    NUMERICAL_INSTABILITY = "numerical_instability"
    POISONED = "poisoned"  # all rows with numbers, but for those that end their process
    FAILED = "failed"


class NonFinite(Document):
    """What was seen of numbers that are not finite everywhere."""

    nan: NonNegativeInt
    inf: NonNegativeInt
    finite_min: float | None  # None: nothing was finite
    finite_max: float | None

    def __str__(self) -> str:
        span = (
            f"finite values from {self.finite_min:.4g} to {self.finite_max:.4g}"
            if self.finite_min is not None
            else "no finite value"
        )
        return f"{self.nan:,} NaN, {self.inf:,} Inf, {span}"


class Instability(Document):
    """One record without an embedding: it is not finite, and what each precision that tried saw of
    it; or it is not computed, and why.
    """

    row: NonNegativeInt
    id: str
    length: NonNegativeInt  # letters that are embedded
    seen: dict[Rung, NonFinite] = {}
    reason: str | None = None  # other than not being finite

    def __str__(self) -> str:
        history = [f"{precision}: {seen}" for precision, seen in self.seen.items()]
        why = "; ".join([*history, *([self.reason] if self.reason else [])])
        return f"row {self.row} {self.id!r} ({self.length:,} letters): {why or 'not finite'}"


class BatchResult(Message):
    """What became of a batch at one rung."""

    job: str
    index: NonNegativeInt
    rung: Rung
    previous_rung: Rung | None = renamed_field("after", "previous_rung", default=None)
    status: Status
    worker: str
    precision: Rung | None = None  # what the numbers were computed in; None if there are none
    records: NonNegativeInt = 0  # rows with numbers
    tokens: NonNegativeInt = 0  # of rows with numbers
    seconds: float = 0.0  # of forward passes
    unstable: tuple[Instability, ...] = ()
    next: Rung | None = None  # where the unstable rows go on; None: nowhere
    poisoned: tuple[Instability, ...] = ()  # rows that are given up, as they end their process
    error: str | None = None
    stops_job: bool = False
    created: float | None = None  # of the job that it is of: an earlier staging's results are stale

    @property
    def quarantined(self) -> tuple[Instability, ...]:
        """Rows that no rung could embed, and those that none is to try."""
        return self.poisoned + (self.unstable if self.next is None else ())


def retry_of(batch: Batch, result: BatchResult) -> Batch:
    """A batch's unstable rows at the rung after the one that ``result`` is of."""
    assert result.next is not None, result
    update = {"rung": result.next, "previous_rung": result.rung, "records": len(result.unstable)}
    return batch.model_copy(update=update)
