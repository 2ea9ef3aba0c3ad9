"""The names of the ledger's keys in Redis."""

import hashlib

from common.rungs import Rung
from common.wire.messages import Batch, BatchResult
from common.wire.queues import KEY_PREFIX

#: Keys of a job beside its hash.
JOB_PARTS = (
    *("stored", "begun", "leases", "owners", "attempts", "deaths", "trails", "results", "events"),
    *(f"done:{rung}" for rung in Rung),
)


def store_digest(store: str) -> str:
    return hashlib.sha256(store.encode()).hexdigest()[:16]


def job_key(job: str) -> str:
    return f"{KEY_PREFIX}job:{job}"


def done_key(of: Batch | BatchResult) -> str:
    return f"{job_key(of.job)}:done:{of.rung}"


def batch_field(index: int, rung: Rung) -> str:
    return f"{index}.{rung}"


def parse_batch_field(field: str) -> tuple[int, Rung]:
    index, rung = field.split(".")
    return int(index), Rung(rung)
