"""The shard of a batch: one HDF5 object with its embeddings and how they were made."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import DamagedError
from common.embeddings.reader import read_embeddings
from common.embeddings.seal import Computed, Label
from common.embeddings.shards import open_shard
from common.embeddings.writer import create_embedding_file
from common.errors import UserError
from common.job.layout import shard_key
from common.job.manifest import find_job
from common.job.opening import find_opening
from common.job.output_form import OutputForm
from common.store import ObjectExistsError, ObjectNotFoundError, Store
from common.wire.messages import Batch
from workers.engine.attributes import model_attributes
from workers.engine.engine import Outcome
from workers.models.loading import LoadedModel

log = logging.getLogger(__name__)


def write_shard(
    store: Store,
    batch: Batch,
    form: OutputForm,
    loaded: LoadedModel,
    outcome: Outcome,
    before_replacing: Callable[[], None] = lambda: None,
    computed: Computed | None = None,
) -> None:
    """Write a batch's finite rows under the name that follows from its job, index and rung.

    An equal shard is kept and not written again. A damaged or different one is replaced. A
    different one may be left by a late worker whose batch was of an earlier staging.

    Args:
        before_replacing: raises if the lease was lost, as the shard may be the new owner's.
        computed: who computed it, and when; None: that is not recorded.

    Raises:
        StoreError: the store failed.
    """
    key = shard_key(batch.job, batch.index, batch.rung)
    attributes = attributes_of(batch, form, loaded, outcome)
    label = label_of(batch, loaded, outcome)
    if computed is not None:
        label = label.model_copy(update={"computed": computed})
    dim = loaded.spec.dim

    def put(*, replace: bool, check: Callable[[], None] = lambda: None) -> None:
        with store.create(key, replace=replace) as path:
            fill_shard(path, form, dim, outcome.embeddings, attributes, label)
            check()

    try:
        put(replace=False)
    except ObjectExistsError:
        difference = difference_of(store, key, form, dim, outcome.embeddings, attributes, label)
        if difference is None:
            log.info("%s/%s exists and is equal: it is kept.", store.url, key)
            return
        log.warning("%s/%s %s: it is replaced.", store.url, key, difference)
        put(replace=True, check=before_replacing)


def delete_if_orphaned(store: Store, batch: Batch) -> None:
    """Delete the shard of a batch if its job was deleted meanwhile: nobody else would.

    A job that was not has a manifest or, while it is staged, an opening.
    """
    with suppress(UserError):  # then what is left stays
        if find_job(store, batch.job) is None and find_opening(store, batch.job) is None:
            store.delete_keys([shard_key(batch.job, batch.index, batch.rung)])


def fill_shard(
    path: Path,
    form: OutputForm,
    dim: int,
    embeddings: Embeddings,
    attributes: dict[str, Any],
    label: Label,
) -> None:
    """Write embeddings to a file as a shard."""
    with create_embedding_file(
        path,
        form=form,
        records=len(embeddings),
        residues=int(embeddings.lengths.sum()),
        pairs=int((embeddings.lengths**2).sum()),
        dim=dim,
        attributes=attributes,
        label=label,
    ) as writer:
        writer.write(embeddings)


def difference_of(
    store: Store,
    key: str,
    form: OutputForm,
    dim: int,
    embeddings: Embeddings,
    attributes: dict[str, Any],
    label: Label,
) -> str | None:
    """Return how the stored shard differs from a new one, other than in its vectors, if it does.

    A different precision counts, because the ledger will have that of the new shard.
    """
    try:
        with open_shard(store, key) as shard:
            for name in ("rung", "created"):
                ours, theirs = getattr(label, name), getattr(shard.label, name)
                if None not in (ours, theirs) and ours != theirs:
                    return f"has another {name}"
            stored = read_embeddings(shard.file, form, dim)
            for name, value in attributes.items():
                if name != "version" and not np.array_equal(shard.file.attrs[name], value):
                    return f"has another {name}"
    except ObjectNotFoundError:
        return "was deleted meanwhile"
    except DamagedError as error:
        return f"cannot be read ({error})"
    return None if np.array_equal(stored.rows, embeddings.rows) else "has other rows"


def label_of(batch: Batch, loaded: LoadedModel, outcome: Outcome) -> Label:
    return Label(
        job=batch.job,
        batch=batch.index,
        rung=batch.rung,
        created=batch.created,
        precision=outcome.precision,
        tokens=outcome.tokens,
        records=len(outcome.embeddings),
        weights=loaded.fingerprint,
    )


def attributes_of(
    batch: Batch, form: OutputForm, loaded: LoadedModel, outcome: Outcome
) -> dict[str, Any]:
    return {
        **model_attributes(loaded, form),
        "precision": outcome.precision.value,
        "tokens": outcome.tokens,
        "job": batch.job,
        "batch": batch.index,
    }
