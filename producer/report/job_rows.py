"""The rows of a job that may be under way: those of the batches that are done."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from common.bounded_map import bounded_map
from common.embeddings.arrays import Embeddings
from common.job.manifest import Manifest
from common.store import Store
from producer.output.contents import Block
from producer.output.damaged import RowsMissingError
from producer.output.fan_out import FanOut
from producer.output.job_embeddings import without_residues
from producer.output.job_shards import SHARDS_AHEAD, merged


def rows_of_job(
    store: Store,
    manifest: Manifest,
    keys: Mapping[int, list[str]],
    attributes: dict[str, Any],
) -> Iterator[Embeddings]:
    """Yield the rows of each batch that is done, in their order, without those of residues.

    A batch with copies of rows of one that is not done is left out too.

    Args:
        keys: of the shards of each batch that has any, in their order.
        attributes: that all shards share.
    """
    manifest = without_residues(manifest)
    done: set[int] = set()
    is_whole = len(keys) == manifest.batches
    with closing(FanOut(store, manifest)) as fan_out:

        def load(batch: int) -> Block | None:
            try:
                block = merged(store, manifest, batch, keys[batch], attributes)
            except RowsMissingError:  # they wait for a retry
                return None
            fan_out.prepare(batch)
            return block

        for batch, block in zip(keys, bounded_map(load, keys, SHARDS_AHEAD), strict=True):
            is_whole = is_whole and block is not None
            if block is not None and (is_whole or fan_out.needs(batch) <= done):
                done.add(batch)
                yield fan_out.whole(batch, *block)[0]
