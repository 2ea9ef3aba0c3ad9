"""The lease renewer: a thread that renews a process's leases and shows that the process lives."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from redis.exceptions import RedisError, ResponseError

from common.ledger.leases import RENEW_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from workers.batches.lease import Lease, LeaseLostError

log = logging.getLogger(__name__)

#: Seconds that Redis has to answer a request of the renewer. Short enough for several renewals
#: within a lease, even if one gets no answer.
ANSWER_SECONDS = 5.0

#: Seconds between two rounds if Redis did not answer in the first.
RETRY_SECONDS = 1.0

#: Seconds for which the consumer may look for no messages while Redis answers. To reconnect, Celery
#: pauses for up to 30.
IDLE_SECONDS = 120.0


class LeaseRenewer:
    """Renews leases and the worker's entry in the ledger every ``RENEW_SECONDS``.

    Args:
        ledger: on a connection of its own, so that renewals do not wait for other requests.
        info: the worker's entry.
        heartbeat_file: touched in every round, whether Redis answers or not; but not while the
            worker takes no batches though Redis answers.
        idle_seconds: seconds since the consumer last looked for messages, or had no room for more.
    """

    def __init__(
        self,
        ledger: Ledger,
        info: WorkerInfo,
        heartbeat_file: Path | None = None,
        idle_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.ledger = ledger
        self.info = info
        self.heartbeat_file = heartbeat_file
        self.idle_seconds = idle_seconds
        self._answers_since: float | None = None  # monotonic time; None: Redis does not answer
        self._leases: dict[str, Lease] = {}  # by owner
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease renewer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def update(self, info: WorkerInfo) -> None:
        """Change the worker's entry: now, or in the next round if Redis does not answer."""
        self.info = info
        with suppress(RedisError):
            self.ledger.workers.announce(info)

    def stop(self) -> None:
        """End the thread and remove the worker's entry."""
        self._stop.set()
        self._thread.join(timeout=5)
        with suppress(RedisError):  # the entry expires by itself
            self.ledger.workers.leave(self.info)

    def add(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        with self._lock:
            self._leases[lease.owner] = lease

    def remove(self, lease: Lease) -> None:
        """Renew a lease no longer."""
        with self._lock:
            del self._leases[lease.owner]

    def held(self) -> list[Lease]:
        """Return the leases that are renewed."""
        with self._lock:
            return list(self._leases.values())

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            # First: a process is not frozen because Redis does not answer.
            if self.takes:
                self._touch_heartbeat_file()
            else:
                log.error("No message was looked for in %.0f s.", self.idle_seconds())
            try:
                self._renew_all()
                self._answers_since = self._answers_since or time.monotonic()
                pause = RENEW_SECONDS
            except RedisError as error:
                log.warning("The ledger did not answer: %s. Trying again.", error)
                self._answers_since = None
                pause = RETRY_SECONDS

    @property
    def takes(self) -> bool:
        """Whether the worker takes batches, as far as Redis lets it."""
        if self._answers_since is None:
            return True
        answered = time.monotonic() - self._answers_since
        return min(self.idle_seconds(), answered) < IDLE_SECONDS

    def _touch_heartbeat_file(self) -> None:
        if self.heartbeat_file is not None:
            with suppress(OSError):
                self.heartbeat_file.touch()

    def _renew_all(self) -> None:
        # Leases first: if Redis is slow, a late entry does less harm than an expired lease.
        for lease in self.held():
            try:
                lease.renew(self.ledger)
            except LeaseLostError:
                batch = lease.batch
                log.warning("The lease of batch %d of %s was lost.", batch.index, batch.job)
            except ResponseError as error:  # a key of its job may have the wrong type
                batch = lease.batch
                log.error(
                    "The lease of batch %d of %s is not renewed: %s.",
                    *(batch.index, batch.job, error),
                )
        self.ledger.workers.announce(self.info.model_copy(update={"takes": self.takes}))
