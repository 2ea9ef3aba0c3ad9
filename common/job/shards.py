"""Which shards a job has in the store."""

import logging
from collections import defaultdict

from common.job.layout import output_prefix, parse_shard_key, shard_key
from common.job.manifest import Manifest
from common.rungs import Rung
from common.store import Store

log = logging.getLogger(__name__)

#: Rungs by rising precision: where a row is in two shards, the later one counts.
ORDER = tuple(Rung)


def shards_of(store: Store, manifest: Manifest) -> dict[int, list[tuple[Rung, str]]]:
    """Every batch's shards, with their keys, in the ladder's order."""
    found: dict[int, list[tuple[Rung, str]]] = defaultdict(list)
    for key in store.keys(output_prefix(manifest.job)):
        place = batch_of_shard(manifest, key)
        if place is None:
            log.warning("%s/%s is no shard of this job: left alone.", store.url, key)
            continue
        batch, rung = place
        found[batch].append((rung, key))
    return {
        batch: sorted(shards, key=lambda s: ORDER.index(s[0])) for batch, shards in found.items()
    }


def batch_of_shard(manifest: Manifest, key: str) -> tuple[int, Rung] | None:
    """The batch and rung that a shard is of; None if the job has no such batch."""
    try:
        batch, rung = parse_shard_key(key)
    except ValueError:
        return None
    ours = 0 <= batch < manifest.batches and key == shard_key(manifest.job, batch, rung)
    return (batch, rung) if ours else None
