"""The retry policy of a worker: what it tries again, how often, and after which pause."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from redis.exceptions import RedisError

from common.backoff import backoff
from common.ledger.claims import ClaimResult, ReleaseReason
from common.ledger.leases import LEASE_SECONDS
from common.store import StoreError
from workers.batches.lease import Lease

log = logging.getLogger(__name__)

#: Retries of a request to the store, on top of those of its client; and of a result's report to the
#: ledger, which are more, as computing it again costs more than waiting.
STORE_RETRIES, LEDGER_RETRIES = 2, 5

#: Upper limit in seconds of the pause before the first retry of a request to the store. It doubles
#: with every retry.
STORE_PAUSE = 2.0

#: Upper limits in seconds of the pauses before the first and the last retry of a report.
FIRST_LEDGER_PAUSE, LONGEST_LEDGER_PAUSE = 1.0, 8.0

#: Attempts after which a batch fails if its store still does.
MAX_ATTEMPTS = 5

#: Upper limits in seconds of the pauses before a batch is requeued after its first and its last
#: attempt. A store may be away for minutes.
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 60.0

#: Seconds before a batch is requeued that only another worker can compute: with a pause, that one
#: is more likely to get it.
OTHER_WORKER_PAUSE = 1.0

T = TypeVar("T")


class RequeueError(Exception):
    """A batch was not computed, through no fault of its own: its message should be requeued."""


class RetryPolicy:
    """Decides what is tried again; waits before it.

    Args:
        stopping: set when the worker is told to stop. It ends every pause.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self.stopping = stopping

    def raise_if_stopping(self) -> None:
        """Raise RequeueError if the worker is told to stop."""
        if self.stopping.is_set():
            raise RequeueError("this worker is stopping")

    def ask_store(self, action: Callable[[], T]) -> T:
        """Return the value of ``action``, which is called again if the store or the ledger fails.

        Raises:
            RequeueError: the store failed, and the worker is told to stop.
        """
        return self._retry(action, backoff(STORE_RETRIES, first=STORE_PAUSE, longest=LONGEST_PAUSE))

    def ask_ledger(self, action: Callable[[], T]) -> T:
        """Return the value of ``action``, which is called again if the ledger fails."""
        pauses = backoff(LEDGER_RETRIES, first=FIRST_LEDGER_PAUSE, longest=LONGEST_LEDGER_PAUSE)
        return self._retry(action, pauses)

    def _retry(self, action: Callable[[], T], pauses: Iterable[float]) -> T:
        for pause in pauses:
            try:
                return action()
            except (StoreError, RedisError) as error:
                log.warning("%s Trying again in %.1f s.", error, pause)
                self.stopping.wait(pause)
                if isinstance(error, StoreError):
                    self.raise_if_stopping()
        return action()

    def is_last(self, attempt: ClaimResult) -> bool:
        """Whether a batch whose store fails in this attempt fails too, instead of a requeue."""
        return attempt.attempts - attempt.crashes >= MAX_ATTEMPTS

    def wait_before_requeue(self, attempt: ClaimResult) -> None:
        """Wait before a batch is requeued whose store failed."""
        *_, pause = backoff(attempt.attempts, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self.stopping.wait(pause)

    def wait_for_other_worker(self) -> None:
        """Wait before a batch is requeued that only another worker can compute."""
        self.stopping.wait(OTHER_WORKER_PAUSE)

    def release(self, lease: Lease) -> None:
        """Release a lease once the ledger answers, or wait until it has expired.

        If its message were requeued before, its next worker would skip it, as the batch is
        still leased.
        """
        for _ in range(LEASE_SECONDS):
            try:
                lease.release(ReleaseReason.INTERRUPTED)
                return
            except RedisError:
                if self.stopping.wait(1):
                    return
