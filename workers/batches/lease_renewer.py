"""The sign of life: renews a process's claims and its entry in the list of workers."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis.exceptions import RedisError

from common.ledger.leases import RENEW_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.wire.messages import Batch

log = logging.getLogger(__name__)


#: Seconds that Redis has to answer a beat, which is not tried again before the next: a lease should
#: see several of them, whatever becomes of one.
ANSWER_SECONDS = 5.0

#: Seconds until the next beat if Redis did not answer.
RETRY_SECONDS = 1.0


class LeaseRenewer:
    """A thread that speaks to the ledger every ``RENEW_SECONDS`` while the process lives.

    Args:
        ledger: on a connection of its own, if beats are not to wait for others.
        beat_file: is touched at every beat, whether Redis answers or not.
    """

    def __init__(self, ledger: Ledger, info: WorkerInfo, beat_file: Path | None = None) -> None:
        self.ledger = ledger
        self.info = info
        self.beat_file = beat_file
        self._held: dict[str, Batch] = {}  # by owner
        self._renewed: dict[str, float] = {}  # when their claims were known to be theirs, at least
        self._lost: set[str] = set()  # owners whose batches are no longer theirs
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def update(self, info: WorkerInfo) -> None:
        """Say something new of this worker: at once, or with the next beat."""
        self.info = info
        with suppress(RedisError):
            self.ledger.workers.announce(info)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        with suppress(RedisError):  # the entry expires by itself
            self.ledger.workers.leave(self.info)

    def held(self) -> dict[str, Batch]:
        """The batches whose claims are kept alive, by owner."""
        with self._lock:
            return dict(self._held)

    @contextmanager
    def holding(self, batch: Batch, owner: str) -> Iterator[None]:
        """Keep a claim alive while the body runs."""
        with self._lock:
            self._held[owner] = batch
            self._renewed[owner] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._held[owner], self._renewed[owner]
                self._lost.discard(owner)

    def is_sure(self, owner: str) -> bool:
        """Whether a claim that is held cannot have run out."""
        return time.monotonic() - self._renewed[owner] < RENEW_SECONDS

    def is_lost(self, owner: str) -> bool:
        """Whether a claim that is held could not be renewed: taken over, or its job cancelled."""
        return owner in self._lost

    def _beat(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            # First: a Redis that is away is no reason to think that this process is frozen.
            self._touch_beat_file()
            try:
                self._renew()
                pause = RENEW_SECONDS
            except RedisError as error:
                log.warning("The ledger did not answer (%s); trying again.", error)
                pause = RETRY_SECONDS

    def _touch_beat_file(self) -> None:
        if self.beat_file is not None:
            with suppress(OSError):
                self.beat_file.touch()

    def _renew(self) -> None:
        # Claims first: they are what is lost if Redis answers slowly.
        for owner, batch in self.held().items():
            asked = time.monotonic()
            if not self.ledger.leases.renew(batch, owner=owner):
                self._give_up(owner, batch)
            else:
                self._note_renewed(owner, asked)
        self.ledger.workers.announce(self.info)

    def _note_renewed(self, owner: str, when: float) -> None:
        with self._lock:
            # It may have been let go meanwhile.
            if owner in self._renewed:
                self._renewed[owner] = when

    def _give_up(self, owner: str, batch: Batch) -> None:
        log.warning("Batch %d of %s is no longer ours.", batch.index, batch.job)
        with self._lock:
            # It may have been completed meanwhile.
            if owner in self._held:
                self._lost.add(owner)
