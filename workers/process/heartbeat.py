"""The heartbeat of a worker process: what it says of itself to its supervisor, every second.

A process is not alive if one of its threads stands still: the consumer looks for no messages though
Redis answers, or the lease renewer does not come round. Nor is it if Redis refuses it, for which
only a person can do something. While Redis is away, a process is alive: a new one could do no more.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from workers.batches.lease_renewer import IDLE_SECONDS, LeaseRenewer
from workers.process.beat import Beat, write_beat

log = logging.getLogger(__name__)

#: Seconds between two heartbeats.
BEAT_SECONDS = 1.0

#: Seconds for which Redis may refuse a process that still counts as alive.
REFUSED_SECONDS = 30.0

#: Seconds that a round of the lease renewer may take with its pause; 50 s if Redis takes almost as
#: long as it may for each answer.
ROUND_SECONDS = 60.0


class Heartbeat:
    """A thread that writes a ``Beat`` to a file every ``BEAT_SECONDS``.

    Attributes:
        stage: what the process does before it consumes; None from then on.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.stage: str | None = "starting"
        self._renewer: LeaseRenewer | None = None
        self._polls: Callable[[], bool] = lambda: False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread, if a supervisor named a file."""
        if self.file is not None:
            self._thread.start()

    def watch(self, renewer: LeaseRenewer, polls: Callable[[], bool]) -> None:
        """Say from now on how the threads of this process are.

        Args:
            renewer: knows whether Redis answers, and whether the consumer takes batches.
            polls: whether the consumer has looked for messages since the model was loaded.
        """
        self._renewer, self._polls = renewer, polls

    def beat(self) -> Beat:
        """Return how the process is now."""
        renewer = self._renewer
        if renewer is None:
            return Beat(consumes=False, reason=self.stage or "")
        problem = what_is_wrong(renewer)
        if problem is not None:
            return Beat(alive=False, consumes=False, reason=problem)
        if self.stage is not None:
            return Beat(consumes=False, reason=self.stage)
        if not renewer.contact.answers:
            return Beat(consumes=False, reason="waiting for Redis")
        if not self._polls():
            return Beat(consumes=False, reason="connecting to the queues")
        return Beat()

    def _run(self) -> None:
        assert self.file is not None
        problem = None
        while True:
            beat = self.beat()
            write_beat(self.file, beat)
            if not beat.alive and beat.reason != problem:
                log.error("This process is not alive: %s.", beat.reason)
            problem = None if beat.alive else beat.reason
            time.sleep(BEAT_SECONDS)


def what_is_wrong(renewer: LeaseRenewer) -> str | None:
    """Return why a process is not alive; None if it is."""
    if renewer.round_seconds > ROUND_SECONDS:
        return f"its leases were not renewed in {ROUND_SECONDS:g} s"
    contact = renewer.contact
    if contact.refusal is not None and contact.seconds > REFUSED_SECONDS:
        return f"Redis refuses this worker: {contact.refusal}"
    if not renewer.takes:
        return f"no message was looked for in {IDLE_SECONDS:g} s, though Redis answers"
    return None
