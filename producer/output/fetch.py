"""Shards to one file: rows in input order, rungs merged, every row with its precision."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from common import __version__
from common.bounded_map import bounded_map
from common.embeddings.arrays import Embeddings
from common.embeddings.reader import DamagedError, open_embedding_file, read_embeddings
from common.embeddings.writer import create_embedding_file
from common.errors import UserError
from common.job.layout import input_key, output_prefix
from common.job.manifest import Manifest
from common.job.quarantine import read_quarantine
from common.job.records import decode_batch
from common.job.shards import shards_of
from common.rungs import PRECISION_CODES
from common.store import Store
from common.wire.messages import Instability

#: Shards that are read ahead of the one being written; one may be 256 MB.
SHARDS_AHEAD = 2

#: Attributes of a shard that are of that shard alone.
OF_ONE_SHARD = ("precision", "tokens", "batch")


@dataclass(frozen=True)
class Fetched:
    """What is in the file that was written."""

    path: Path
    rows: int
    precisions: dict[str, int]  # rows with numbers, by what computed them
    quarantined: list[Instability]  # rows without numbers
    warning: str | None


def fetch(
    store: Store,
    manifest: Manifest,
    output: Path,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> Fetched:
    """Write a finished job's rows, in input order, into one HDF5 file.

    Memory holds a few shards, whatever the size of the job. The file has its name only once it
    is whole.

    Raises:
        UserError: batches are missing, shards come from different weights, or the file cannot be
            written.
    """
    keys = shards_by_batch(store, manifest)
    attributes = attributes_of_job(store, keys)
    quarantined: list[Instability] = []
    codes = np.zeros(len(PRECISION_CODES), np.int64)

    def load(index: int) -> tuple[Embeddings, tuple[Instability, ...]]:
        return merged(store, manifest, index, keys[index], attributes)

    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with create_embedding_file(
            partial,
            form=manifest.form,
            records=manifest.report.records,
            residues=manifest.report.residues,
            dim=int(attributes["dim"]),
            attributes=attributes | {"input": manifest.input, "version": __version__},
        ) as writer:
            last_row = -1
            for part, without_numbers in bounded_map(load, range(manifest.batches), SHARDS_AHEAD):
                last_row = check_order(manifest, part, last_row)
                writer.write(part)
                quarantined += without_numbers
                codes += np.bincount(part.precision, minlength=len(codes))
                on_rows(len(part))
            writer.file.attrs["rows_without_numbers"] = len(quarantined)
        partial.replace(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}.") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    precisions = {
        name: int(codes[code]) for name, code in PRECISION_CODES.items() if code and codes[code]
    }
    return Fetched(
        output, manifest.report.records, precisions, quarantined, attributes.get("warning")
    )


def check_order(manifest: Manifest, part: Embeddings, last_row: int) -> int:
    """See that a batch's rows come after those before; its last row.

    Raises:
        UserError: they do not: the shard was cut out of the input in another way.
    """
    if np.any(np.diff(part.rows, prepend=last_row) <= 0):
        raise UserError(
            f"A shard of {manifest.job} has rows of another batch, near row {part.rows[0]:,}: "
            f"delete {output_prefix(manifest.job)} and submit the same input again."
        )
    return int(part.rows[-1]) if len(part) else last_row


def attributes_of_job(store: Store, keys: Mapping[int, list[str]]) -> dict[str, Any]:
    """What the first shard that can be read says of all of them.

    Raises:
        UserError: none can be read; what is wrong with the first.
    """
    problem: UserError | None = None
    for batch in sorted(keys):
        try:
            with opened_shard(store, keys[batch][0]) as file:
                return {k: v for k, v in file.attrs.items() if k not in OF_ONE_SHARD}
        except UserError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def shards_by_batch(store: Store, manifest: Manifest) -> dict[int, list[str]]:
    """Every batch's shards in the order in which they count.

    Raises:
        UserError: some batch has none.
    """
    found = shards_of(store, manifest)
    missing = manifest.batches - len(found)
    if missing:
        raise UserError(
            f"{missing} of {manifest.batches} batches of {manifest.job} have no output yet: "
            f"{how_to_go_on(manifest)}."
        )
    return {batch: [key for _, key in shards] for batch, shards in found.items()}


def how_to_go_on(manifest: Manifest) -> str:
    job = manifest.job
    return (
        f"see producer status {job}, wait with producer watch {job}, or submit the same input "
        "again to retry what failed"
    )


def merged(
    store: Store, manifest: Manifest, index: int, keys: list[str], attributes: dict[str, Any]
) -> tuple[Embeddings, tuple[Instability, ...]]:
    """A batch's rows in input order, from the shards of all rungs, and those that none could embed.

    Raises:
        UserError: rows that are neither in a shard nor quarantined: they wait for a retry.
    """
    parts = [read_shard(store, manifest, index, key, attributes) for key in keys]
    if len(parts) == 1 and len(parts[0]) == manifest.batch_records[index]:
        return parts[0], ()
    whole = fill(store, manifest, index, parts, int(attributes["dim"]))
    missing = set(whole.rows[whole.precision == 0].tolist())
    quarantined = tuple(
        bad for bad in read_quarantine(store, manifest.job, index) if bad.row in missing
    )
    waiting = missing - {bad.row for bad in quarantined}
    if waiting:
        raise UserError(
            f"{len(waiting):,} rows of batch {index} of {manifest.job}, row {min(waiting)} first, "
            f"have no numbers yet: {how_to_go_on(manifest)}. If the job is finished, delete "
            f"{store.url}/{keys[-1]} and submit again to have its rows computed anew."
        )
    return whole, quarantined


def read_shard(
    store: Store, manifest: Manifest, index: int, key: str, attributes: dict[str, Any]
) -> Embeddings:
    with opened_shard(store, key) as file:
        weights = file.attrs["weights"]
        place = file.attrs["job"], int(file.attrs["batch"])
        embeddings = read_embeddings(file, manifest.form)
    if place != (manifest.job, index):
        raise UserError(
            f"{store.url}/{key} is of batch {place[1]} of {place[0]}: delete it and submit the "
            "same input again to have the right one computed."
        )
    if weights != attributes["weights"]:
        raise UserError(
            f"{store.url}/{key} was computed with weights {weights}, others of this job with "
            f"{attributes['weights']}: their numbers do not belong in one file."
        )
    return embeddings


@contextmanager
def opened_shard(store: Store, key: str) -> Iterator[h5py.File]:
    try:
        with store.open(key) as path, open_embedding_file(path) as file:
            yield file
    except (OSError, KeyError, DamagedError) as error:
        raise UserError(
            f"{store.url}/{key} cannot be read ({error}): delete it and submit the same input "
            "again to have it computed anew."
        ) from error


def fill(
    store: Store, manifest: Manifest, index: int, parts: list[Embeddings], dim: int
) -> Embeddings:
    """Lay the rows of ``parts`` over a batch of NaN rows made from the batch's input."""
    records = decode_batch(store.get(input_key(manifest.job, index)))
    try:
        return Embeddings.overlay(parts, records, manifest.form, dim)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"A shard of batch {index} of {manifest.job} has rows of another batch: delete "
            f"{store.url}/{output_prefix(manifest.job)}{index:07d}.* and submit again."
        ) from error
