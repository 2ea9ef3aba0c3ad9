"""What a batch leaves in the store: one HDF5 shard, which says what made it."""

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
    """Write a batch's finite rows under the name that its job, index and rung give.

    The first shard stays: one that says the same is not written again. One that is damaged, or of
    other rows, as a worker leaves it that was late and had the batch of an earlier staging, is
    replaced.

    Args:
        before_replacing: raises if the batch is another worker's by now, whose shard it may be.

    Raises:
        StoreError: the store did not take it.
    """
    key = shard_key(batch.job, batch.index, batch.rung)
    attributes = attributes_of(batch, form, loaded, outcome)
    dim = loaded.spec.dim
    try:
        put_shard(store, key, form, dim, outcome.embeddings, attributes, replace=False)
    except ObjectExistsError:
        difference = difference_of(store, key, form, outcome.embeddings, attributes)
        if difference is None:
            log.info("%s/%s is there already and says the same: it stays.", store.url, key)
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
    store: Store, key: str, form: OutputForm, ours: Embeddings, attributes: dict[str, Any]
) -> str | None:
    """What the shard in the store has other than ours, the numbers aside; None: nothing.

    The precision counts: the ledger will say of the batch what we tell it.
    """
    try:
        with store.open(key) as path, open_embedding_file(path) as file:
            theirs = read_embeddings(file, form)
            for name, value in attributes.items():
                if name != "version" and not np.array_equal(file.attrs[name], value):
                    return f"has another {name} than ours"
    except ObjectNotFoundError:
        return "is gone again"
    except UNREADABLE as error:
        return f"cannot be read ({error})"
    return None if np.array_equal(theirs.rows, ours.rows) else "has other rows than ours"


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
