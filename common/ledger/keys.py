"""The names of the ledger's keys in Redis."""

import hashlib

from common.rungs import Rung
from common.wire.messages import Batch, BatchResult
from common.wire.queues import KEY_PREFIX

#: Parts of a job, each under a key of its own beside the job's hash.
JOB_PARTS = (
    *("stored", "begun", "leases", "owners", "attempts", "deaths", "trails", "results", "events"),
    *(f"done:{rung}" for rung in Rung),
)


def store_digest(store: str) -> str:
    """Return a short name of a store for use in keys."""
    return hashlib.sha256(store.encode()).hexdigest()[:16]


def job_key(job: str) -> str:
    return f"{KEY_PREFIX}job:{job}"


def done_key(of: Batch | BatchResult) -> str:
    """Return the key of the bitmap of batches with a result at the same rung."""
    return f"{job_key(of.job)}:done:{of.rung}"


def batch_field(index: int, rung: Rung) -> str:
    """Return the field of a batch at a rung in the job's hashes and its set of leases."""
    return f"{index}.{rung}"


def parse_batch_field(field: str) -> tuple[int, Rung]:
    """Return the batch and rung that ``batch_field`` made a field of."""
    index, rung = field.split(".")
    return int(index), Rung(rung)
