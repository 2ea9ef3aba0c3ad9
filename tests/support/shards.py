"""Embeddings with random numbers, and the files that they are written to."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common.alphabet import SPECIAL_TOKENS
from common.crc import crc32
from common.embeddings.arrays import Embeddings, entries_of
from common.embeddings.seal import Label
from common.embeddings.writer import create_embedding_file
from common.job.layout import shard_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.records import Record, decode_batch, encode_batch
from common.rungs import Rung
from common.store import Store


def embeddings_of(
    records: Sequence[Record],
    form: OutputForm,
    dim: int,
    *,
    precision: Rung = Rung.FP16,
    seed: int | None = None,
) -> Embeddings:
    """Return embeddings of records with random values, all of them different."""
    lengths = np.array([form.embedded(len(record.residues)) for record in records], np.int64)
    letters = int(lengths.sum())
    random = np.random.default_rng(seed)

    def numbers(count: int, dtype: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        shape = form.vector_shape(dim) if shape is None else shape
        return random.random((count, *shape)).astype(dtype)

    return Embeddings.of_records(
        records,
        form,
        precision=precision,
        pooled={name: numbers(len(records), "float32") for name in form.pooled_names},
        residues=numbers(letters, form.residue_dtype) if form.per_residue else None,
        scores={
            name: numbers(
                entries_of(name, lengths),
                form.score_dtype(name),
                form.score_shape(name),
            )
            for name in form.scores
        },
    )


def same_for_same(
    records: Sequence[Record], form: OutputForm, dim: int, *, precision: Rung = Rung.FP16
) -> Embeddings:
    """Return embeddings with values that depend on each record's letters alone."""
    parts = [
        embeddings_of(
            [record], form, dim, precision=precision, seed=crc32(record.residues.encode())
        )
        for record in records
    ]
    return Embeddings.concatenate(parts, form, dim)


def write_shard(
    path: Path,
    form: OutputForm,
    dim: int,
    /,
    *parts: Embeddings,
    label: Label | None = None,
    **attributes: object,
) -> Path:
    """Write parts to one file, one after another, as a worker or ``fetch`` does."""
    with create_embedding_file(
        path,
        form=form,
        records=sum(len(part) for part in parts),
        residues=sum(int(part.lengths.sum()) for part in parts),
        pairs=sum(int((part.lengths**2).sum()) for part in parts),
        dim=dim,
        attributes=attributes,
        label=label,
    ) as writer:
        for part in parts:
            writer.write(part)
    return path


def store_inputs(store: Store, manifest: Manifest, records: Sequence[Record]) -> Manifest:
    """Write a job's records as its batches' input objects; return the manifest with checksums."""
    assert len(records) == manifest.report.records
    rest = iter(records)
    checksums = ""
    for index, size in enumerate(manifest.batch_records):
        data = encode_batch([next(rest) for _ in range(size)])
        store.put(manifest.input_key(index), data)
        checksums += f"{crc32(data):08x}"
    return manifest.model_copy(update={"input_crc32": checksums})


def store_shard(
    store: Store,
    manifest: Manifest,
    index: int,
    *,
    dim: int = 4,
    rung: Rung = Rung.FP16,
    rows: Sequence[int] | None = None,
    precision: Rung | None = None,
    weights: str = "w",
    sealed: bool = True,
    embed: Callable[..., Embeddings] = embeddings_of,
) -> Embeddings:
    """Write the shard of a batch at a rung as a worker does, with all of its rows or some.

    Args:
        sealed: false: as a worker of an earlier version does.
    """
    precision = precision or rung
    records = decode_batch(store.get(manifest.input_key(index)))
    kept = [record for record in records if rows is None or record.row in rows]
    part = embed(kept, manifest.form, dim, precision=precision)
    attributes = {
        "model": manifest.model,
        "weights": weights,
        "dim": dim,
        "layers": list(manifest.form.layers),
        "precision": precision.value,
        "tokens": int(part.lengths.sum()) + SPECIAL_TOKENS * len(part),
        "job": manifest.job,
        "batch": index,
        "warning": "nothing",
    }
    label = Label(
        **{name: attributes[name] for name in ("job", "batch", "precision", "tokens", "weights")},
        rung=rung,
        created=manifest.created.timestamp(),
        records=len(part),
    )
    with store.create(shard_key(manifest.job, index, rung)) as path:
        write_shard(path, manifest.form, dim, part, label=label if sealed else None, **attributes)
    return part
