"""Messages: a batch for a worker, its result for the ledger.

They are frozen and versioned; a field may be added with a default, never changed. A message is a
claim check: it names the object with a batch's records and does not contain them.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
)

from common.rungs import Rung


def renamed_field(wire_name: str, name: str, **options: Any) -> Any:
    """Declare a field that is called ``wire_name`` in messages, in both directions."""
    choices = AliasChoices(wire_name, name)
    return Field(validation_alias=choices, serialization_alias=wire_name, **options)


#: The form of a job's name, which is part of paths, keys and URLs.
JOB_NAME = re.compile(r"[A-Za-z0-9_-]+")


def check_job_name(name: str) -> str:
    if not JOB_NAME.fullmatch(name):
        raise ValueError("not the name of a job")
    return name


JobName = Annotated[str, AfterValidator(check_job_name)]


class Document(BaseModel):
    """Base of everything stored as JSON: immutable, ignoring the fields of newer versions."""

    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True)


class Message(Document):
    """A document with a version."""

    version: Literal[1] = 1


class Priority(StrEnum):
    """The priority of a job: workers empty a model's queues in this order."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Batch(Message):
    """The unit of work: consecutive records of one job, to be computed at one rung.

    Above the first rung, only the rows that were not finite at ``previous_rung`` are computed; the
    ledger has that result, which names them.
    """

    job: JobName
    index: NonNegativeInt
    first_rung: Rung = renamed_field("first", "first_rung")  # where the job's ladder begins
    rung: Rung
    previous_rung: Rung | None = renamed_field("after", "previous_rung", default=None)
    model: str  # ModelSource.text
    key: str  # of the input object; read by workers of earlier versions alone
    records: PositiveInt  # to be computed
    tokens: NonNegativeInt | None = None  # of these records; of a retry, not known
    priority: Priority = Priority.NORMAL
    created: float | None = None  # when the job was staged; an earlier staging's batches are stale


class Status(StrEnum):
    """The outcome of a batch at a rung."""

    OK = "ok"
    NUMERICAL_INSTABILITY = "numerical_instability"
    POISONED = "poisoned"  # finite, but for rows that crash their worker
    FAILED = "failed"


class NonFinite(Document):
    """The values of a vector that is not finite."""

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
    """A record without an embedding: what each precision saw of it, or why it was not computed."""

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
    """The result of a batch at one rung."""

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
    next: Rung | None = None  # rung at which the unstable rows are retried; None: quarantine
    poisoned: tuple[Instability, ...] = ()  # rows that crash their worker
    error: str | None = None
    stops_job: bool = False
    created: float | None = None  # when the job was staged, as in Batch

    @property
    def quarantined(self) -> tuple[Instability, ...]:
        """Rows that no rung could embed, and rows that crash their worker."""
        return self.poisoned + (self.unstable if self.next is None else ())


def retry_of(batch: Batch, result: BatchResult) -> Batch:
    """Return the batch of the unstable rows of ``result``, at their next rung."""
    assert result.next is not None, result
    rungs = {"rung": result.next, "previous_rung": result.rung}
    size = {"records": len(result.unstable), "tokens": None}
    return batch.model_copy(update=rungs | size)
