"""Rows that were given up, tried again."""

from common.broker import publish
from common.layout import quarantine_key, quarantine_prefix, shard_key
from common.ledger import Ledger
from common.manifest import Manifest
from common.messages import Batch, Instability
from common.quarantine import read_quarantine
from common.rungs import NEXT_RUNG
from common.store import Store
from producer.feeding import Feeder
from producer.jobs import model_of
from producer.restore import restore, results_of_batch
from producer.shards import shards_of


def quarantined_batches(store: Store, manifest: Manifest) -> list[int]:
    """The batches that have rows without an embedding."""
    keys = store.keys(quarantine_prefix(manifest.job))
    return [int(key.rpartition("/")[2].partition(".")[0]) for key in keys]


def quarantined_rows(store: Store, manifest: Manifest) -> list[Instability]:
    """A job's rows without an embedding, in input order."""
    batches = quarantined_batches(store, manifest)
    rows = [row for index in batches for row in read_quarantine(store, manifest.job, index)]
    return sorted(rows, key=lambda row: row.row)


def retry_quarantined(store: Store, ledger: Ledger, feeder: Feeder, manifest: Manifest) -> int:
    """Have all rows without an embedding computed again.

    Those that a rung gave up go on to the next one. Where there is none above, what that rung made
    of the batch is computed anew.

    Returns:
        Batches that were published for it.
    """
    stored = shards_of(store, manifest)
    indices = quarantined_batches(store, manifest)
    for index in indices:
        shards = stored.get(index, [])
        results = results_of_batch(store, manifest, index, shards)
        for result, _ in reversed(results):
            ledger.reopen(result)
        store.delete(quarantine_key(manifest.job, index))
        if results:
            last = results[-1][0]
            if last.precision is None or NEXT_RUNG[last.precision] is None:
                store.delete(shard_key(manifest.job, index, last.rung))
                shards = [shard for shard in shards if shard[0] is not last.rung]
        restore(store, ledger, manifest, {index: shards})
    retries = ledger.retries(manifest)
    batches: list[Batch] = []
    for index in indices:
        again = [retry for (place, _), retry in retries.items() if place == index]
        batches += again or [manifest.batch(index)]
    return publish(feeder.app, model_of(manifest), batches)
