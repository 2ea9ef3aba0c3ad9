"""The opening of a large job: its manifest so far, for workers that begin while it is staged.

It grows with the batches that are staged, and is gone once the job has its manifest.
"""

from common.job import sealed
from common.job.layout import opening_key
from common.job.manifest import Manifest, find_job, read_manifest
from common.store import ObjectNotFoundError, Store


def write_opening(store: Store, manifest: Manifest) -> None:
    """Write or replace a job's opening; the objects that it names are in the store."""
    store.put(opening_key(manifest.job), sealed.dump(manifest))


def find_opening(store: Store, job: str) -> Manifest | None:
    """Return a job's opening; None if it has none, or an unreadable one."""
    try:
        return sealed.parse(Manifest, store.get(opening_key(job)))
    except (ObjectNotFoundError, ValueError):
        return None


def read_manifest_so_far(store: Store, job: str) -> Manifest:
    """Read a job's manifest or, while it is staged, its opening.

    Raises:
        ObjectNotFoundError: the store has neither.
        UserError: as of ``read_manifest``.
    """
    found = find_job(store, job) or find_opening(store, job)
    # If it has none any more, the manifest was written in between.
    return found or read_manifest(store, job)
