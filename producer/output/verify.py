"""Verification of a job: reading all of its objects once, without writing."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from common.advice import how_to
from common.bounded_map import bounded_map
from common.embeddings.arrays import Embeddings
from common.errors import NotReadyError, UserError
from common.job.copies import read_copies
from common.job.inputs import read_input
from common.job.layout import output_prefix, shard_key
from common.job.manifest import Manifest, read_manifest
from common.job.records import Record
from common.job.reused import read_reused_names
from common.job.shards import shards_of
from common.store import ObjectNotFoundError, Store, StoreError
from producer.output.damaged import DamagedShardsError
from producer.output.job_shards import (
    SHARDS_AHEAD,
    attributes_of_job,
    merge,
    read_shard,
)

log = logging.getLogger(__name__)


def verify(store: Store, manifest: Manifest) -> list[str]:
    """Return a text for each object of a finished job that is missing or damaged."""
    return list(map(str, problems_of(store, manifest)))


def problems_of(store: Store, manifest: Manifest) -> list[UserError]:
    """Read a finished job's manifest, all of its input objects, copies and shards.

    Returns:
        An error for each that is missing, damaged, or does not belong to the others. It is
        ``NotReadyError`` where the reason may be that the job is not finished.
    """
    problems: list[UserError] = []
    try:
        read_manifest(store, manifest.job)
    except UserError as error:
        problems.append(error)
    keys, attributes = shards_and_attributes(store, manifest)
    if not keys:
        problems.append(
            NotReadyError(
                f"{store.url}/{output_prefix(manifest.job)} has no shards: the job's folder was "
                "copied without them, or none is computed yet. To have them computed: "
                + how_to("resume", manifest.job)
            )
        )

    def missing(index: int) -> UserError:
        shard = f"{store.url}/{shard_key(manifest.job, index, manifest.rung)}"
        how = how_to("resume", manifest.job)
        return NotReadyError(f"{shard} is missing. To have it computed: {how}")

    def check(index: int) -> list[UserError]:
        found = problems_of_batch(store, manifest, index, keys.get(index, []), attributes)
        return [*found, *([missing(index)] if keys and index not in keys else [])]

    of_batches = bounded_map(check, range(manifest.batches), SHARDS_AHEAD)
    return [*problems, *chain.from_iterable(of_batches)]


def damaged_shards(
    store: Store, manifest: Manifest, batches: Sequence[int]
) -> Iterator[tuple[int, set[str]]]:
    """Yield those of some batches that have shards to be computed again, with these shards' keys.

    Raises:
        StoreError: the store does not answer.
    """
    keys, attributes = shards_and_attributes(store, manifest)

    def check(index: int) -> tuple[int, set[str]]:
        damaged: set[str] = set()
        for problem in problems_of_batch(store, manifest, index, keys.get(index, []), attributes):
            if isinstance(problem, DamagedShardsError):
                damaged.update(problem.keys)
            elif isinstance(problem, StoreError) and not isinstance(problem, ObjectNotFoundError):
                raise problem
        return index, damaged

    for index, damaged in bounded_map(check, batches, SHARDS_AHEAD):
        if damaged:
            yield index, damaged


def delete_damaged(
    store: Store, manifest: Manifest, batches: Sequence[int], hold: Callable[[], None]
) -> None:
    """Delete the shards of some batches that are to be computed again.

    Args:
        hold: renews the job's lock; raises if another process had it meanwhile.
    """
    for _, keys in damaged_shards(store, manifest, batches):
        for key in sorted(keys):
            store.delete(key, hold)
            log.warning("%s/%s cannot be used: deleted, to be computed again.", store.url, key)


def shards_and_attributes(
    store: Store, manifest: Manifest
) -> tuple[dict[int, list[str]], dict[str, Any] | None]:
    """Return the keys of each batch's shards, and the attributes they share; None if unreadable."""
    keys = {batch: [key for _, key in found] for batch, found in shards_of(store, manifest).items()}
    with suppress(UserError):  # the reason is that of each shard
        return keys, attributes_of_job(store, manifest, keys) if keys else None
    return keys, None


def problems_of_batch(
    store: Store,
    manifest: Manifest,
    index: int,
    keys: list[str],
    attributes: dict[str, Any] | None,
) -> Iterator[UserError]:
    """Yield what is wrong with the objects of a batch: its input, its copies and its shards."""
    records: list[Record] = []
    parts = []
    try:
        records = read_input(store, manifest, index)
    except UserError as error:
        yield error
    try:
        read_copies(store, manifest, index)
    except UserError as error:
        yield error
    try:
        if manifest.reused_of(index):
            weights = None if attributes is None else str(attributes["weights"])
            read_reused_names(store, manifest, index, weights)
    except UserError as error:
        yield error
    for key in keys:
        try:
            of_job = attributes or attributes_of_job(store, manifest, {index: [key]})
            parts.append(read_shard(store, manifest, index, key, of_job))
        except UserError as error:
            yield error
    if records and attributes and keys and len(parts) == len(keys):
        try:
            whole, _ = merge(store, manifest, index, keys, parts, int(attributes["dim"]))
        except UserError as error:
            yield error
        else:
            if not is_of(records, whole, manifest):
                yield DamagedShardsError(
                    f"The shards of batch {index} of {manifest.job} are of other sequences than "
                    "its input object. To have them computed again:",
                    manifest.job,
                    keys,
                )


def is_of(records: Sequence[Record], found: Embeddings, manifest: Manifest) -> bool:
    """Return whether embeddings are those of some records, as far as names and lengths tell."""
    of_records = Embeddings.of_records(
        records, manifest.form, precision="none", pooled={}, residues=None
    )
    names = ("rows", "headers", "ids", "lengths", "input_lengths")
    return all(np.array_equal(found.columns[n], of_records.columns[n]) for n in names)
