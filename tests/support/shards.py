"""Embeddings with random numbers, and the files that they are written to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.batchfile import Record
from common.manifest import OutputForm
from common.rungs import PRECISION_CODES, Rung
from common.shard import Embeddings, create_embedding_file


def embeddings_of(
    records: Sequence[Record], form: OutputForm, dim: int, *, precision: Rung = Rung.FP16
) -> Embeddings:
    """What an engine makes of records, but for the numbers: those are random, all different."""
    input_lengths = np.array([len(record.residues) for record in records], np.int64)
    lengths = np.minimum(input_lengths, form.max_residues)
    width = (dim,) if len(form.layers) == 1 else (len(form.layers), dim)
    random = np.random.default_rng()

    def numbers(count: int, dtype: str) -> np.ndarray:
        return random.random((count, *width)).astype(dtype)

    return Embeddings(
        rows=np.array([record.row for record in records], np.int64),
        headers=[record.header for record in records],
        ids=[record.id for record in records],
        lengths=lengths,
        input_lengths=input_lengths,
        precision=np.full(len(records), PRECISION_CODES[precision], np.uint8),
        pooled={name: numbers(len(records), "float32") for name in form.pooled_names},
        residues=numbers(int(lengths.sum()), form.residue_dtype) if form.per_residue else None,
    )


def write_shard(
    path: Path, form: OutputForm, dim: int, /, *parts: Embeddings, **attributes: object
) -> Path:
    """Write parts into one file, one after another, as a worker or ``fetch`` does."""
    with create_embedding_file(
        path,
        form=form,
        records=sum(len(part) for part in parts),
        residues=sum(int(part.lengths.sum()) for part in parts),
        dim=dim,
        attributes=attributes,
    ) as writer:
        for part in parts:
            writer.write(part)
    return path
