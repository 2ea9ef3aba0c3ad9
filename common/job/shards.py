"""The shards that a job has in the store."""

import logging
from collections import defaultdict

from common.job.layout import output_prefix, parse_shard_key, shard_key
from common.job.manifest import Manifest
from common.rungs import Rung
from common.store import Store

log = logging.getLogger(__name__)

#: All rungs by rising precision: where a row is in two shards, the later one counts.
ORDER = tuple(Rung)


def shards_of(store: Store, manifest: Manifest) -> dict[int, list[tuple[Rung, str]]]:
    """Return the shards of every batch that has any, with their keys, in the ladder's order."""
    found: dict[int, list[tuple[Rung, str]]] = defaultdict(list)
    for key in store.keys(output_prefix(manifest.job)):
        batch_and_rung = batch_of_shard(manifest, key)
        if batch_and_rung is None:
            log.warning("%s/%s is not a shard of this job: ignored.", store.url, key)
            continue
        batch, rung = batch_and_rung
        found[batch].append((rung, key))
    return {
        batch: sorted(shards, key=lambda s: ORDER.index(s[0])) for batch, shards in found.items()
    }


def batch_of_shard(manifest: Manifest, key: str) -> tuple[int, Rung] | None:
    """Return the batch and rung of a shard; None if the job has no such batch."""
    try:
        batch, rung = parse_shard_key(key)
    except ValueError:
        return None
    belongs = 0 <= batch < manifest.batches and key == shard_key(manifest.job, batch, rung)
    return (batch, rung) if belongs else None
