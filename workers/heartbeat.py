"""The sign of life: renews a process's claims and its entry in the list of workers."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from common.ledger import RENEW_SECONDS, Ledger, WorkerInfo
from common.messages import Batch

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that speaks to the ledger every ``RENEW_SECONDS`` while the process lives."""

    def __init__(self, ledger: Ledger, info: WorkerInfo) -> None:
        self.ledger = ledger
        self.info = info
        self._held: dict[str, Batch] = {}  # by owner
        self._lost: set[str] = set()  # owners whose batches are no longer theirs
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def update(self, info: WorkerInfo) -> None:
        """Say something new of this worker, at once."""
        self.info = info
        self.ledger.announce(info)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        self.ledger.leave(self.info)

    @contextmanager
    def holding(self, batch: Batch, owner: str) -> Iterator[None]:
        """Keep a claim alive while the body runs."""
        with self._lock:
            self._held[owner] = batch
        try:
            yield
        finally:
            with self._lock:
                del self._held[owner]
                self._lost.discard(owner)

    def is_lost(self, owner: str) -> bool:
        """Whether a claim that is held could not be renewed: taken over, or its job cancelled."""
        return owner in self._lost

    def _beat(self) -> None:
        while True:
            try:
                self.ledger.announce(self.info)
                with self._lock:
                    held = dict(self._held)
                for owner, batch in held.items():
                    if not self.ledger.renew(batch, owner=owner):
                        self._give_up(owner, batch)
            except RedisError as error:
                log.warning("The ledger did not answer (%s); trying again.", error)
            if self._stop.wait(RENEW_SECONDS):
                return

    def _give_up(self, owner: str, batch: Batch) -> None:
        log.warning("Batch %d of %s is no longer ours.", batch.index, batch.job)
        with self._lock:
            # It may have been completed meanwhile.
            if owner in self._held:
                self._lost.add(owner)
