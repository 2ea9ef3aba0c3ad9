"""What goes over the wire: a batch to a worker, its result into the ledger.

Frozen and versioned; a field is added with a default, never changed. A message is a claim check:
it says where a batch's records lie, never what they are.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from common.rungs import Rung


class Message(BaseModel):
    # A newer producer may say more than an older worker understands.
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1


class Batch(Message):
    """Work: consecutive records of one job, to be computed at one rung."""

    job: str
    index: NonNegativeInt
    rung: Rung
    model: str  # ModelSource.text
    key: str  # of the input object in the store
    records: PositiveInt
    tokens: PositiveInt
    created: float | None = None  # when the job was staged; an earlier staging's batches are stale


class Status(StrEnum):
    OK = "ok"
    NUMERICAL_INSTABILITY = "numerical_instability"
    FAILED = "failed"


class Instability(Message):
    """One record whose embedding is not finite, and what was seen of it."""

    row: NonNegativeInt
    nan: NonNegativeInt
    inf: NonNegativeInt
    finite_min: float | None  # None: nothing was finite
    finite_max: float | None


class BatchResult(Message):
    """What became of a batch at one rung."""

    job: str
    index: NonNegativeInt
    rung: Rung
    status: Status
    worker: str
    precision: Rung | None = None  # what the numbers were computed in; None if there are none
    records: NonNegativeInt = 0  # rows with numbers
    tokens: NonNegativeInt = 0
    seconds: float = 0.0  # of forward passes
    unstable: tuple[Instability, ...] = ()
    error: str | None = None
