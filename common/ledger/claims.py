"""The result of a claim, and the records that a worker leaves for the next one."""

from dataclasses import dataclass
from enum import StrEnum

from common.wire.messages import Document, renamed_field


class ClaimOutcome(StrEnum):
    """The outcome of a claim: success, or the reason of its refusal."""

    TAKEN = "taken"
    DONE = "done"
    HELD = "held"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    OTHER_WEIGHTS = "other_weights"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ClaimResult:
    """The outcome of a claim and the history of its batch at its rung."""

    outcome: ClaimOutcome
    attempts: int = 0  # including this one
    crashes: int = 0  # leases that expired or whose worker crashed
    previous_owner: str = ""  # whose expired lease this claim replaces


class ReleaseReason(StrEnum):
    """The reason why a lease ends without a result."""

    INTERRUPTED = "interrupted"  # the batch is not the cause: not counted as an attempt
    FAILED = "failed"  # counted as an attempt
    CRASHED = "crashed"  # counted as an attempt and as a crash


class CrashRecord(Document):
    """The history of a batch that crashes its workers; saved before each row is computed alone.

    The names in Redis are those of the first version.
    """

    crashes: int = renamed_field("deaths", "crashes", default=0)  # when this record was saved
    current_row: int | None = renamed_field("row", "current_row", default=None)
    isolated_crashes: int = renamed_field("ends", "isolated_crashes", default=0)
    suspects: dict[int, int] = renamed_field("blamed", "suspects", default={})  # row: crashes
