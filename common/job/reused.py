"""The rows of a batch that an earlier job has computed: an HDF5 object of the job's own.

It has what a shard has, sealed like one, and the digest of each sequence, which is in no input
object of the job. So the earlier job can be deleted, and this one's rows can be used again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.checksums import DamagedError
from common.embeddings.reader import numbers_in, read_embeddings, texts_in
from common.embeddings.seal import Label
from common.embeddings.shards import Shard, open_shard
from common.embeddings.writer import create_embedding_file
from common.errors import UserError
from common.job.digests import Digests
from common.job.layout import job_prefix
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.store import Store

#: The dataset with the digest of each row's sequence, uint64 ``[n, 2]``.
DIGESTS = "digests"


class ReusedNames(NamedTuple):
    """What the reused rows of a batch are, without their vectors."""

    rows: Array
    headers: list[str]
    input_lengths: Array  # letters in the input
    digests: Digests


def write_reused(
    store: Store,
    key: str,
    label: Label,
    form: OutputForm,
    part: Embeddings,
    digests: Digests,
    attributes: Mapping[str, Any],
) -> None:
    """Write the reused rows of a batch.

    Raises:
        StoreError: the store failed.
    """
    with (
        store.create(key) as path,
        create_embedding_file(
            path,
            form=form,
            records=len(part),
            residues=int(part.lengths.sum()),
            pairs=int((part.lengths**2).sum()),
            dim=int(attributes["dim"]),
            attributes=attributes,
            label=label,
        ) as writer,
    ):
        writer.file[DIGESTS] = digests
        writer.write(part)


def read_reused(store: Store, manifest: Manifest, index: int, dim: int, weights: str) -> Embeddings:
    """Return the reused rows of a batch, with the vectors of the manifest's form.

    Raises:
        StoreError: the store did not give the object.
        UserError: it is not the one that was staged, or its weights are not the job's.
    """
    with opened(store, manifest, index, weights) as shard:
        return read_embeddings(shard.file, manifest.form, dim)


def read_reused_names(
    store: Store, manifest: Manifest, index: int, weights: str | None = None
) -> ReusedNames:
    """Return what the reused rows of a batch are; the whole object is proven.

    Args:
        weights: the fingerprint that those of the vectors must have; None: any.

    Raises:
        StoreError: the store did not give the object.
        UserError: it is not the one that was staged, or its weights are not the job's.
    """
    count = manifest.reused_of(index)
    with opened(store, manifest, index, weights) as (_, file, _):
        return ReusedNames(
            rows=numbers_in(file, "rows", np.dtype(np.int64), (count,)),
            headers=texts_in(file, "headers", count),
            input_lengths=numbers_in(file, "input_lengths", np.dtype(np.int64), (count,)),
            digests=numbers_in(file, DIGESTS, np.dtype(np.uint64), (count, 2)),
        )


@contextmanager
def opened(store: Store, manifest: Manifest, index: int, weights: str | None) -> Iterator[Shard]:
    """Open the reused rows of a batch, proven to be those that were staged."""
    key = manifest.reused_key(index)
    try:
        with open_shard(store, key) as shard:
            label, found = shard.label, len(shard.file["rows"])
            expected = manifest.reused_of(index)
            if (label.job, label.batch) != (manifest.job, index):
                raise DamagedError(f"it is of batch {label.batch} of {label.job}")
            if found != expected:
                raise DamagedError(f"it has {found:,} rows instead of {expected:,}")
            if weights not in (None, label.weights):
                raise UserError(
                    f"The workers that computed {manifest.job} have weights {weights}, but the "
                    f"rows that it took over from an earlier job have {label.weights}: submit the "
                    "input again without --reuse, and with --new."
                )
            yield shard
    except DamagedError as error:
        raise UserError(
            f"{store.url}/{key} is damaged ({error}): delete "
            f"{store.url}/{job_prefix(manifest.job)} and submit the input again.",
            path=f"{store.url}/{key}",
        ) from error
