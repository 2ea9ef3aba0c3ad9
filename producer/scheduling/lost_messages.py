"""Lost messages: batches that are published, but neither queued, nor claimed, nor done.

A worker takes a message from its queue in one command and records it as unacknowledged in the next.
If it is killed between the two, the message is lost.
"""

import base64
import json
import time
from collections.abc import Iterable, Mapping

from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.rungs import Rung
from common.wire.messages import Batch
from common.wire.queues import Queues, batch_queue
from producer.scheduling.one_by_one import OneByOne

#: Seconds between two looks through the queues, or this many times the duration of the last look,
#: which is long for long queues.
LOOK_SECONDS, LOOK_SHARE = 5.0, 20

#: Looks in a row that must miss a batch before it counts as lost, since a message on its way is in
#: no queue for a moment. More if a worker may still have the message.
PATIENCE, PATIENCE_IN_FLIGHT = 3, 7

#: The job, index and rung that identify a message's batch.
BatchKey = tuple[str, int, Rung]


class LostMessages:
    """A search for lost messages, which remembers the batches that it missed before."""

    def __init__(self, ledger: Ledger, one_by_one: OneByOne) -> None:
        self.ledger = ledger
        self.one_by_one = one_by_one
        self._missing: dict[BatchKey, int] = {}
        self._losses: dict[BatchKey, int] = {}  # how often each outstanding batch was lost
        self._next_look = 0.0

    def look(self, manifests: Iterable[Manifest]) -> list[Batch]:
        """Return the lost batches of open jobs, each of them once."""
        started = time.monotonic()
        if started < self._next_look:
            return []
        outstanding = {
            (batch.job, batch.index, batch.rung): batch
            for manifest in manifests
            for batch in self._outstanding(manifest)
        }
        lost = self._lost(outstanding) if outstanding else []
        took = time.monotonic() - started
        self._next_look = started + max(LOOK_SECONDS, LOOK_SHARE * took)
        return lost

    def _outstanding(self, manifest: Manifest) -> Iterable[Batch]:
        with self.one_by_one(manifest.job):
            progress = self.ledger.jobs.progress(manifest.job)
            if progress is not None:
                return list(self.ledger.batches.outstanding(manifest, progress.published))
        return ()

    def _lost(self, outstanding: Mapping[BatchKey, Batch]) -> list[Batch]:
        queued = self._queued(outstanding)
        in_flight = {batch_key_of(item) for item in Queues(self.ledger.redis).in_flight()}
        lost, missing = [], {}
        self._losses = {key: n for key, n in self._losses.items() if key in outstanding}
        for key, batch in outstanding.items():
            if key in queued:
                continue
            looks = self._missing.get(key, 0) + 1
            losses = self._losses.get(key, 0)
            # Twice as long each time: workers that cannot read a message lose it again.
            if looks < (PATIENCE_IN_FLIGHT if key in in_flight else PATIENCE) << losses:
                missing[key] = looks
            else:
                lost.append(batch)
                self._losses[key] = losses + 1
        self._missing = missing
        return lost

    def _queued(self, outstanding: Mapping[BatchKey, Batch]) -> set[BatchKey | None]:
        """Return the batches that are queued; of a queue that cannot be read, all of them."""
        queues = Queues(self.ledger.redis)
        found: set[BatchKey | None] = set()
        by_queue: dict[str, list[BatchKey]] = {}
        for key, batch in outstanding.items():
            by_queue.setdefault(batch_queue(batch), []).append(key)
        for name, keys in by_queue.items():
            queued: Iterable[BatchKey | None] = keys
            with self.one_by_one(keys[0][0]):
                queued = [batch_key_of(item) for item in queues.messages(name)]
            found.update(queued)
        return found


def batch_key_of(item: bytes) -> BatchKey | None:
    """Return the key of the batch in a Celery message; None if the message has no batch."""
    try:
        message = json.loads(item)
        if isinstance(message, list):  # in flight: the message, its exchange and its routing key
            message = message[0]
        _, arguments, _ = json.loads(base64.b64decode(message["body"]))
        batch = Batch.model_validate(arguments)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return batch.job, batch.index, batch.rung
