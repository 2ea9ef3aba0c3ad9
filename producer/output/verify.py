"""Verification of a job: reading all of its objects once, without writing."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from common.advice import how_to
from common.bounded_map import bounded_map
from common.embeddings.arrays import Embeddings
from common.errors import UserError
from common.job.inputs import read_input
from common.job.layout import output_prefix, shard_key
from common.job.manifest import Manifest, read_manifest
from common.job.records import Record
from common.job.shards import shards_of
from common.store import Store
from producer.output.fetch import (
    SHARDS_AHEAD,
    attributes_of_job,
    how_to_recompute,
    merge,
    read_shard,
)


def verify(store: Store, manifest: Manifest) -> list[str]:
    """Read a finished job's manifest, all of its input objects, and all of its shards.

    Returns:
        A text for each that is missing, damaged, or does not belong to the others.
    """
    problems = []
    try:
        read_manifest(store, manifest.job)
    except UserError as error:
        problems.append(str(error))
    keys = {batch: [key for _, key in found] for batch, found in shards_of(store, manifest).items()}
    if not keys:
        problems.append(
            f"{store.url}/{output_prefix(manifest.job)} has no shards: the job's folder was copied "
            "without them, or none is computed yet. To have them computed: "
            + how_to("resume", manifest.job)
        )
    attributes = None
    with suppress(UserError):  # no shard can be read: the reason is that of each
        attributes = attributes_of_job(store, manifest, keys) if keys else None

    def missing(index: int) -> str:
        shard = f"{store.url}/{shard_key(manifest.job, index, manifest.rung)}"
        return f"{shard} is missing. To have it computed: {how_to('resume', manifest.job)}"

    def check(index: int) -> list[str]:
        found = problems_of_batch(store, manifest, index, keys.get(index, []), attributes)
        return [*found, *([missing(index)] if keys and index not in keys else [])]

    of_batches = bounded_map(check, range(manifest.batches), SHARDS_AHEAD)
    return [*problems, *chain.from_iterable(of_batches)]


def problems_of_batch(
    store: Store,
    manifest: Manifest,
    index: int,
    keys: list[str],
    attributes: dict[str, Any] | None,
) -> Iterator[str]:
    """Yield what is wrong with the input object and with the shards of a batch."""
    records: list[Record] = []
    parts = []
    try:
        records = read_input(store, manifest, index)
    except UserError as error:
        yield str(error)
    for key in keys:
        try:
            of_job = attributes or attributes_of_job(store, manifest, {index: [key]})
            parts.append(read_shard(store, manifest, index, key, of_job))
        except UserError as error:
            yield str(error)
    if records and attributes and keys and len(parts) == len(keys):
        try:
            whole, _ = merge(store, manifest, index, keys, parts, int(attributes["dim"]))
        except UserError as error:
            yield str(error)
        else:
            if not is_of(records, whole, manifest):
                shards = f"{output_prefix(manifest.job)}{index:07d}.*"
                yield (
                    f"The shards of batch {index} of {manifest.job} are of other sequences than "
                    f"its input object: {how_to_recompute(store, manifest.job, shards)}"
                )


def is_of(records: Sequence[Record], found: Embeddings, manifest: Manifest) -> bool:
    """Return whether embeddings are those of some records, as far as names and lengths tell."""
    of_records = Embeddings.of_records(
        records, manifest.form, precision="none", pooled={}, residues=None
    )
    names = ("rows", "headers", "ids", "lengths", "input_lengths")
    return all(np.array_equal(found.columns[n], of_records.columns[n]) for n in names)
