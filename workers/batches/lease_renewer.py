"""The lease renewer: a thread that renews a process's leases and its entry in the ledger."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from redis.exceptions import RedisError, ResponseError

from common.ledger.leases import RENEW_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.wire.first_contact import is_refusal
from workers.batches.lease import Lease, LeaseLostError
from workers.batches.meter import Meter

log = logging.getLogger(__name__)

#: Seconds that Redis has to answer a request of the renewer. Short enough for several renewals
#: within a lease, even if one gets no answer.
ANSWER_SECONDS = 5.0

#: Seconds between two rounds if Redis did not answer in the first.
RETRY_SECONDS = 1.0

#: Seconds between two looks, within a round, for progress to announce.
PROGRESS_SECONDS = 1.0

#: Seconds for which the consumer may look for no messages while Redis answers.
IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Contact:
    """Whether Redis answers, since when, and why it refuses if it does.

    A Redis that does not answer, or cannot serve anyone at the moment, is away.
    """

    answers: bool
    refusal: str | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def followed_by(self, later: "Contact") -> "Contact":
        """Return a later contact, which began with this one if it is alike."""
        return self if (self.answers, self.refusal) == (later.answers, later.refusal) else later


class LeaseRenewer:
    """Renews leases and the worker's entry in the ledger every ``RENEW_SECONDS``.

    While a batch takes longer than most, the entry is renewed every ``PROGRESS_SECONDS``.

    Args:
        ledger: on a connection of its own, so that renewals do not wait for other requests.
        info: the worker's entry.
        idle_seconds: seconds since the consumer last looked for messages, or had no room for more.
        meter: knows what the worker does, for its entry.

    Attributes:
        contact: with Redis, as the last round found it.
    """

    def __init__(
        self,
        ledger: Ledger,
        info: WorkerInfo,
        idle_seconds: Callable[[], float] = lambda: 0.0,
        meter: Meter | None = None,
    ) -> None:
        self.ledger = ledger
        self.info = info
        self.idle_seconds = idle_seconds
        self.meter = meter or Meter()
        self.contact = Contact(answers=False)
        self._round_ended = time.monotonic()
        self._leases: dict[str, Lease] = {}  # by owner
        self._lock = threading.Lock()
        self._announcing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease renewer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def update(self, info: WorkerInfo) -> None:
        """Change the worker's entry: now, or in the next round if Redis does not answer."""
        self.info = info
        with suppress(RedisError):
            self._announce()

    def tell_stage(self, stage: str) -> None:
        """Announce a stage of loading the model."""
        self.update(self.info.model_copy(update={"stage": stage}))

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

    @property
    def takes(self) -> bool:
        """Whether the worker takes batches, as far as Redis lets it."""
        if not self.contact.answers:
            return True
        return min(self.idle_seconds(), self.contact.seconds) < IDLE_SECONDS

    @property
    def round_seconds(self) -> float:
        """Return the seconds since the last round ended."""
        return time.monotonic() - self._round_ended

    def _run(self) -> None:
        pause = 0.0
        while not self._wait(pause):
            contact = self._go_round()
            self.contact = self.contact.followed_by(contact)
            self._round_ended = time.monotonic()
            away = not contact.answers and contact.refusal is None
            pause = RETRY_SECONDS if away else RENEW_SECONDS

    def _wait(self, seconds: float) -> bool:
        """Wait for the next round, and announce progress meanwhile; return whether to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > PROGRESS_SECONDS:
            if self._stop.wait(PROGRESS_SECONDS):
                return True
            if self.meter.has_news():
                with suppress(RedisError):  # the next round says so
                    self._announce()
        return self._stop.wait(left)

    def _go_round(self) -> Contact:
        """Renew everything; return how Redis answered."""
        try:
            self._renew_all()
        except RedisError as error:
            if is_refusal(error):
                log.error("Redis refuses this worker: %s. Leases are not renewed.", error)
                return Contact(answers=False, refusal=str(error))
            log.warning("The ledger did not answer: %s. Trying again.", error)
            return Contact(answers=False)
        return Contact(answers=True)

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
        self._announce()

    def _announce(self) -> None:
        with self._announcing:  # or an earlier entry could arrive after a later one
            update = {"takes": self.takes, **self.meter.entry()}
            self.ledger.workers.announce(self.info.model_copy(update=update))
