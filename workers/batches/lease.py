"""The lease of a batch: a worker's right to compute it and to report its result."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from common.ledger.claims import ClaimResult, CrashRecord, ReleaseReason
from common.ledger.leases import RENEW_SECONDS
from common.ledger.ledger import Ledger
from common.wire.messages import Batch

#: Unlike ``time.monotonic``, this clock goes on while the machine sleeps.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has the second alone


class LeaseLostError(Exception):
    """The lease of a batch was lost: another worker has the batch, or its job was cancelled."""


class Renewer(Protocol):
    """Renews the leases that it is given, as ``LeaseRenewer`` does."""

    def add(self, lease: "Lease") -> None:
        """Renew a lease from now on."""

    def remove(self, lease: "Lease") -> None:
        """Renew a lease no longer."""


@dataclass(eq=False)
class Lease:
    """The lease of one batch; in a ``with`` statement, ``renewer`` renews it.

    It exists before it is claimed, so that it can be released if the answer to the claim was lost.

    Attributes:
        owner: the name of this attempt, not of the worker.
        attempt: the ledger's answer to ``claim``; not set before.
        is_lost: whether a renewal was refused.
        renewed_at: the ``seconds`` before the last claim or renewal that succeeded.
    """

    batch: Batch
    owner: str
    ledger: Ledger
    renewer: Renewer
    attempt: ClaimResult = field(init=False)
    is_lost: bool = False
    renewed_at: float = 0.0

    def claim(self, weights: str, model_digest: str | None = None) -> ClaimResult:
        """Claim the batch, to be computed with weights of this fingerprint from these files."""
        self.renewed_at = seconds()
        self.attempt = self.ledger.leases.claim(
            self.batch, owner=self.owner, weights=weights, model_digest=model_digest
        )
        return self.attempt

    def renew(self, ledger: Ledger | None = None) -> None:
        """Renew the lease.

        Args:
            ledger: the same ledger on another connection.

        Raises:
            LeaseLostError: the ledger refused.
        """
        asked_at = seconds()
        if not (ledger or self.ledger).leases.renew(self.batch, owner=self.owner):
            self.is_lost = True
            raise LeaseLostError
        self.renewed_at = asked_at

    @property
    def is_sure(self) -> bool:
        """Whether the lease cannot have expired."""
        return seconds() - self.renewed_at < RENEW_SECONDS

    def raise_if_lost(self) -> None:
        """Raise LeaseLostError if a renewal was refused."""
        if self.is_lost:
            raise LeaseLostError

    def release(self, reason: ReleaseReason) -> bool:
        """End the lease without a result; False if it was lost."""
        return self.ledger.leases.release(self.batch, owner=self.owner, reason=reason)

    def crash_record(self) -> CrashRecord:
        """Return the crash record of the batch; an empty one if there is none."""
        return self.ledger.leases.crash_record(self.batch)

    def save_crash_record(self, record: CrashRecord) -> None:
        """Save the crash record of the batch.

        Raises:
            LeaseLostError: the lease was lost.
        """
        if not self.ledger.leases.save_crash_record(self.batch, record, owner=self.owner):
            raise LeaseLostError

    def __enter__(self) -> Self:
        self.renewer.add(self)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.renewer.remove(self)


def seconds() -> float:
    return time.clock_gettime(CLOCK)
