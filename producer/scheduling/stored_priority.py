"""A job's priority in the store, where a change of it survives if Redis is emptied."""

from common.job import sealed
from common.job.layout import priority_key
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.store import ObjectNotFoundError, Store
from common.wire.messages import Document, Priority


class StoredPriority(Document):
    """A job's priority, once it is another than its manifest's."""

    priority: Priority
    created: float  # when the job was staged; an earlier staging's priority is stale


def with_stored_priority(store: Store, manifest: Manifest) -> Manifest:
    """Return a job's manifest with the priority that the store has for it."""
    try:
        found = sealed.parse(StoredPriority, store.get(priority_key(manifest.job)))
    except (ObjectNotFoundError, ValueError):
        return manifest
    is_current = found.created == manifest.created.timestamp()
    return manifest.with_priority(found.priority) if is_current else manifest


def store_priority(store: Store, ledger: Ledger, manifest: Manifest) -> None:
    """Write a job's priority in the ledger to the store, also if it changes meanwhile."""
    while True:
        priority = ledger.jobs.with_priority(manifest).priority
        stored = StoredPriority(priority=priority, created=manifest.created.timestamp())
        store.put(priority_key(manifest.job), sealed.dump(stored))
        if ledger.jobs.with_priority(manifest).priority is priority:
            return
