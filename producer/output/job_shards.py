"""The shards of a finished job, and the rows of a batch merged from those of all rungs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from common.advice import how_to
from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import DamagedError
from common.embeddings.reader import read_embeddings
from common.embeddings.shards import Shard, open_shard
from common.embeddings.writer import pair_bytes, shard_bytes
from common.errors import NotReadyError, UserError
from common.job.cleaning import LOOKS_LIKE_DNA
from common.job.inputs import read_input
from common.job.manifest import Manifest
from common.job.quarantine import read_quarantine
from common.job.reused import read_reused
from common.job.shards import shards_of
from common.store import Store
from common.text import counted_batches
from common.wire.messages import Instability
from producer.output.damaged import DamagedShardsError, RowsMissingError

#: Shards that are read ahead of the one being written; one may be 256 MB.
SHARDS_AHEAD = 2

#: The same of smaller shards, and the bytes that they have together at most.
SMALL_AHEAD, SMALL_BYTES = 3, 64 * 10**6

#: Attributes of a shard that are of that shard alone.
OF_ONE_SHARD = ("precision", "tokens", "batch")


def shards_ahead(manifest: Manifest, dim: int) -> int:
    """Return how many shards are read ahead of the one being written."""
    report = manifest.report
    per_record, per_residue = shard_bytes(manifest.form, dim)
    size = report.records * per_record + report.residues * per_residue
    size += report.pairs * pair_bytes(manifest.form)
    is_small = size * SMALL_AHEAD <= SMALL_BYTES * manifest.batches
    return SMALL_AHEAD if is_small else SHARDS_AHEAD


def check_order(manifest: Manifest, keys: list[str], part: Embeddings, last_row: int) -> int:
    """Check that the rows of a part follow ``last_row`` and increase; return its last row.

    Args:
        keys: of the shards of the part.

    Raises:
        DamagedShardsError: they do not: the input was cut into other batches.
    """
    if np.any(np.diff(part.rows, prepend=last_row) <= 0):
        raise another_batch(manifest, keys, part)
    return int(part.rows[-1]) if len(part) else last_row


def another_batch(manifest: Manifest, keys: list[str], part: Embeddings) -> DamagedShardsError:
    """Return the error of shards that have rows of another batch."""
    return DamagedShardsError(
        f"A shard of {manifest.job} has rows of another batch, near row {part.rows[0]:,}. To "
        "have it computed again:",
        manifest.job,
        keys,
    )


def attributes_of_job(
    store: Store, manifest: Manifest, keys: Mapping[int, list[str]]
) -> dict[str, Any]:
    """Return the attributes that all shards of a job share, from the first readable one.

    Raises:
        UserError: no shard can be read; the error is that of the first.
    """
    problem: UserError | None = None
    for batch in sorted(keys):
        try:
            with opened_shard(store, keys[batch][0]) as (_, file, _):
                found = {k: v for k, v in file.attrs.items() if k not in OF_ONE_SHARD}
                form, dim = manifest.form, int(found["dim"])
                for name in (*form.pooled_names, *(["residues"] if form.per_residue else []))[:1]:
                    if file[name].shape[1:] != form.vector_shape(dim):
                        raise DamagedError(f"{name} is {file[name].shape}, though dim is {dim}")
                return found | {"dim": dim, "weights": str(found["weights"])}
        except UserError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def attributes_of_file(
    store: Store, manifest: Manifest, keys: Mapping[int, list[str]]
) -> dict[str, Any]:
    """Return the attributes of a job's file: of its shards, and of its input.

    Raises:
        UserError: no shard can be read.
    """
    attributes = attributes_of_job(store, manifest, keys)
    warnings = [attributes[name] for name in ["warning"] if name in attributes]
    if manifest.report.looks_like_dna:
        warnings.append(LOOKS_LIKE_DNA)
    of_input = {"input": manifest.input, **manifest.report.attributes()}
    return attributes | of_input | ({"warning": "; ".join(warnings)} if warnings else {})


def shards_by_batch(store: Store, manifest: Manifest) -> dict[int, list[str]]:
    """Return the keys of each batch's shards, in the order of their rungs.

    Raises:
        NotReadyError: a batch has no shard.
    """
    found = shards_of(store, manifest)
    missing = manifest.batches - len(found)
    if missing:
        raise NotReadyError(
            f"{missing:,} of {counted_batches(manifest.batches)} of {manifest.job} have no output "
            f"yet. To wait for them: {how_to('watch', manifest.job)}"
        )
    return {batch: [key for _, key in shards] for batch, shards in found.items()}


def merged(
    store: Store,
    manifest: Manifest,
    index: int,
    keys: list[str],
    attributes: dict[str, Any],
    with_texts: bool = True,
) -> tuple[Embeddings, tuple[Instability, ...]]:
    """Return the rows of a batch, merged from the shards of all rungs, and its quarantined rows.

    Those that were taken over from an earlier job are among them.

    Args:
        with_texts: whether the ids and headers of a batch with a single shard are needed.

    Raises:
        UserError: a shard cannot be read, or rows are neither in a shard nor quarantined: they
            wait for a retry.
    """
    dim = int(attributes["dim"])
    parts = [read_shard(store, manifest, index, key, attributes, with_texts) for key in keys]
    computed, quarantined = merge(store, manifest, index, keys, parts, dim)
    if not manifest.reused_of(index):
        return computed, quarantined
    reused = read_reused(store, manifest, index, dim, str(attributes["weights"]))
    return Embeddings.in_order([computed, reused]), quarantined


def merge(
    store: Store,
    manifest: Manifest,
    index: int,
    keys: list[str],
    parts: list[Embeddings],
    dim: int,
) -> tuple[Embeddings, tuple[Instability, ...]]:
    """Return the rows of a batch, merged from those of its shards; see ``merged``."""
    if len(parts) == 1 and len(parts[0]) == manifest.batch_records[index]:
        return parts[0], ()
    whole = fill(store, manifest, index, keys, parts, dim)
    missing = set(whole.rows[whole.precision == 0].tolist())
    quarantined = tuple(
        bad for bad in read_quarantine(store, manifest.job, index) if bad.row in missing
    )
    waiting = missing - {bad.row for bad in quarantined}
    if waiting:
        raise RowsMissingError(
            f"{len(waiting):,} rows of batch {index} of {manifest.job}, row {min(waiting)} first, "
            f"have no vectors yet. To wait for them: {how_to('watch', manifest.job)}\n"
            "If the job is finished, to have them computed again:",
            manifest.job,
            keys[-1:],
        )
    return whole, quarantined


def read_shard(
    store: Store,
    manifest: Manifest,
    index: int,
    key: str,
    attributes: dict[str, Any],
    with_texts: bool = True,
) -> Embeddings:
    """Read a shard, and check that it is the one of this batch.

    Args:
        with_texts: whether ids and headers are needed; if not, only their checksums may be read.

    Raises:
        UserError: it cannot be read, or is of another batch or of other weights.
    """
    with opened_shard(store, key) as (label, file, is_proven):
        if key != label.key:
            raise DamagedShardsError(
                f"{store.url}/{key} is of batch {label.batch} of {label.job}. To have the right "
                "one computed:",
                manifest.job,
                [key],
                path=f"{store.url}/{key}",
            )
        if label.created not in (None, manifest.created.timestamp()):
            raise DamagedError("it is of an earlier submission of the job")
        if label.weights != attributes["weights"]:
            raise UserError(
                f"{store.url}/{key} was computed with weights {label.weights}, others of this job "
                f"with {attributes['weights']}: their vectors do not belong in one file.",
                path=f"{store.url}/{key}",
            )
        most = manifest.batch_records[index]
        if label.records > most:
            raise DamagedError(f"it has {label.records:,} rows instead of {most:,}")
        dim, needs_texts = int(attributes["dim"]), with_texts or not is_proven
        embeddings = read_embeddings(file, manifest.form, dim, needs_texts)
        if np.any(np.diff(embeddings.rows) <= 0):
            raise DamagedError("its rows are not in order")
    return embeddings


@contextmanager
def opened_shard(store: Store, key: str) -> Iterator[Shard]:
    """Open a shard.

    Raises:
        StoreError: the store does not answer.
        UserError: the shard cannot be read, here or in the block.
    """
    try:
        with open_shard(store, key) as shard:
            yield shard
    except DamagedError as error:
        if isinstance(error.__cause__, MemoryError):  # it may be whole: it must not be deleted
            raise UserError(
                f"{store.url}/{key} cannot be read: there is not enough memory.",
                path=f"{store.url}/{key}",
            ) from error
        raise DamagedShardsError(
            f"{store.url}/{key} cannot be read ({error}). To have it computed again:",
            key.partition("/")[0],
            [key],
            path=f"{store.url}/{key}",
        ) from error


def fill(
    store: Store,
    manifest: Manifest,
    index: int,
    keys: list[str],
    parts: list[Embeddings],
    dim: int,
) -> Embeddings:
    """Lay the rows of ``parts`` over a batch of NaN rows made from the batch's input."""
    records = read_input(store, manifest, index)
    try:
        return Embeddings.overlay(parts, records, manifest.form, dim)
    except (KeyError, ValueError) as error:
        raise DamagedShardsError(
            f"A shard of batch {index} of {manifest.job} has rows of another batch. To have it "
            "computed again:",
            manifest.job,
            keys,
        ) from error
