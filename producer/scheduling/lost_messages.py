"""Messages that vanished: what is published and neither queued, nor claimed, nor done.

Redis gives a message out before it notes that it did: a worker that is killed between the two takes
the message with it.
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

#: Seconds between looks, or so many times what the last one took: a queue may be long.
LOOK_SECONDS, LOOK_SHARE = 5.0, 20

#: Looks in a row at which a batch is missing before it counts as lost: between two steps of its way
#: it is nowhere for a moment. Longer if a worker may still have its message.
PATIENCE, PATIENCE_IN_FLIGHT = 3, 7

Place = tuple[str, int, Rung]


class LostMessages:
    """Looks through the queues now and then, and remembers what was missing."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._missing: dict[Place, int] = {}
        self._next_look = 0.0

    def look(self, manifests: Iterable[Manifest]) -> list[Batch]:
        """The batches of open jobs that are lost, each told once."""
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
        progress = self.ledger.jobs.progress(manifest.job)
        return self.ledger.batches.outstanding(manifest, progress.published) if progress else ()

    def _lost(self, outstanding: Mapping[Place, Batch]) -> list[Batch]:
        queues = {batch_queue(batch) for batch in outstanding.values()}
        queued = {
            place_of(item) for queue in queues for item in Queues(self.ledger.redis).messages(queue)
        }
        in_flight = {place_of(item) for item in Queues(self.ledger.redis).in_flight()}
        lost, missing = [], {}
        for place, batch in outstanding.items():
            if place in queued:
                continue
            looks = self._missing.get(place, 0) + 1
            if looks < (PATIENCE_IN_FLIGHT if place in in_flight else PATIENCE):
                missing[place] = looks
            else:
                lost.append(batch)
        self._missing = missing
        return lost


def place_of(item: bytes) -> Place | None:
    """The job, batch and rung that a message of Celery's is about; None if it is none of ours."""
    try:
        message = json.loads(item)
        if isinstance(message, list):  # in flight: the message, and where it was sent
            message = message[0]
        _, arguments, _ = json.loads(base64.b64decode(message["body"]))
        batch = Batch.model_validate(arguments)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return batch.job, batch.index, batch.rung
