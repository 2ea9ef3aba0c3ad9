"""Who may compute a batch: what becomes of a claim, and what is known of earlier ones."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ClaimOutcome(StrEnum):
    """What became of an attempt to take a batch."""

    TAKEN = "taken"
    DONE = "done"
    HELD = "held"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    OTHER_WEIGHTS = "other_weights"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ClaimResult:
    """What became of a claim, and what is known of earlier ones of the same batch and rung."""

    claim: ClaimOutcome
    number: int = 0  # of this attempt, from 1
    deaths: int = 0  # owners that went away without a word
    lost_by: str = ""  # the owner whose lease had run out, if it is taken over from one


class Release(StrEnum):
    """Why a batch is given back."""

    NO_FAULT = "no_fault"  # through no fault of its own: it is no attempt
    FAILED = "failed"
    DIED = "died"  # it ended its process


class CrashRecord(BaseModel):
    """What is known of a batch that ends its processes: written before each row is computed."""

    model_config = ConfigDict(frozen=True)

    deaths: int = 0  # of the batch until this was noted; 0: it was never computed row by row
    row: int | None = None  # that is being computed, alone
    ends: int = 0  # of processes that computed it row by row
    blamed: dict[int, int] = {}  # rows that were being computed when one of these ended: how often
