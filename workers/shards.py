"""What a batch leaves in the store: one HDF5 shard, which says what made it."""

from typing import Any

from common import __version__
from common.layout import shard_key
from common.manifest import OutputForm
from common.messages import Batch
from common.modeltable import resolve_layers
from common.shard import create_embedding_file
from common.store import Store
from workers.engine import Outcome
from workers.models.loading import LoadedModel

MEANINGLESS = "random weights: these embeddings mean nothing"


def write_shard(
    store: Store, batch: Batch, form: OutputForm, loaded: LoadedModel, outcome: Outcome
) -> None:
    """Write a batch's finite rows under the name that its job, index and rung give.

    Raises:
        StoreError: the store did not take it.
    """
    embeddings = outcome.embeddings
    with (
        store.create(shard_key(batch.job, batch.index, batch.rung)) as path,
        create_embedding_file(
            path,
            form=form,
            records=len(embeddings),
            residues=int(embeddings.lengths.sum()),
            dim=loaded.spec.dim,
            attributes=attributes_of(batch, form, loaded, outcome),
        ) as writer,
    ):
        writer.write(embeddings)


def attributes_of(
    batch: Batch, form: OutputForm, loaded: LoadedModel, outcome: Outcome
) -> dict[str, Any]:
    windows = {} if form.overlap is None else {"window": form.max_residues, "overlap": form.overlap}
    return {
        "model": loaded.source.text,
        "weights": loaded.fingerprint,
        "layers": resolve_layers(form.layers, loaded.spec.layers),
        "dim": loaded.spec.dim,
        "pooling": loaded.spec.family.pooling,
        "precision": outcome.precision.value,
        "tokens": outcome.tokens,
        "job": batch.job,
        "batch": batch.index,
        "version": __version__,
        **windows,
        **({"warning": MEANINGLESS} if loaded.source.is_random else {}),
    }
