"""The shard of a batch: one HDF5 object with its embeddings and how they were made."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.reader import UNREADABLE, open_embedding_file, read_embeddings
from common.embeddings.writer import create_embedding_file
from common.job.layout import shard_key
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
) -> None:
    """Write a batch's finite rows under the name that follows from its job, index and rung.

    An equal shard is kept and not written again. A damaged or different one is replaced. A
    different one may be left by a late worker whose batch was of an earlier staging.

    Args:
        before_replacing: raises if the lease was lost, as the shard may be the new owner's.

    Raises:
        StoreError: the store failed.
    """
    key = shard_key(batch.job, batch.index, batch.rung)
    attributes = attributes_of(batch, form, loaded, outcome)
    dim = loaded.spec.dim
    try:
        put_shard(store, key, form, dim, outcome.embeddings, attributes, replace=False)
    except ObjectExistsError:
        difference = difference_of(store, key, form, outcome.embeddings, attributes)
        if difference is None:
            log.info("%s/%s exists and is equal: it is kept.", store.url, key)
            return
        log.warning("%s/%s %s: it is replaced.", store.url, key, difference)
        before_replacing()
        put_shard(store, key, form, dim, outcome.embeddings, attributes, replace=True)


def put_shard(
    store: Store,
    key: str,
    form: OutputForm,
    dim: int,
    embeddings: Embeddings,
    attributes: dict[str, Any],
    *,
    replace: bool,
) -> None:
    """Write embeddings as a shard."""
    with (
        store.create(key, replace=replace) as path,
        create_embedding_file(
            path,
            form=form,
            records=len(embeddings),
            residues=int(embeddings.lengths.sum()),
            dim=dim,
            attributes=attributes,
        ) as writer,
    ):
        writer.write(embeddings)


def difference_of(
    store: Store, key: str, form: OutputForm, embeddings: Embeddings, attributes: dict[str, Any]
) -> str | None:
    """Return how the stored shard differs from a new one, other than in its vectors, if it does.

    A different precision counts, because the ledger will have that of the new shard.
    """
    try:
        with store.open(key) as path, open_embedding_file(path) as file:
            stored = read_embeddings(file, form)
            for name, value in attributes.items():
                if name != "version" and not np.array_equal(file.attrs[name], value):
                    return f"has another {name}"
    except ObjectNotFoundError:
        return "was deleted meanwhile"
    except UNREADABLE as error:
        return f"cannot be read ({error})"
    return None if np.array_equal(stored.rows, embeddings.rows) else "has other rows"


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
