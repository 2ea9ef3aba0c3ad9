"""A job with known results: a tiny model, small proteins, and their embeddings."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import LETTERS
from common.alphabet import SPECIAL_TOKENS
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.progress import Progress
from common.model_source import ModelSource
from common.model_specs import ESM2, ModelSpec
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from workers.engine.engine import Engine
from workers.models.loading import load_model

SPEC = ModelSpec(name="tiny", layers=1, dim=16, heads=2)

RECORDS_PER_BATCH = 4
SHORTEST, LONGEST = 30, 60

#: Residues of two consecutive records together, so that all batches have equally many tokens.
PAIR = SHORTEST + LONGEST
BATCH_TOKENS = RECORDS_PER_BATCH // 2 * PAIR + RECORDS_PER_BATCH * SPECIAL_TOKENS

#: Number of records embedded in one call for the reference.
RECORDS_PER_CALL = 1000

#: Largest difference of a value from the reference, whose sums have another order.
TOLERANCE = 2e-6

#: Number of wrong rows that are named.
ROWS_NAMED = 5


@dataclass(frozen=True)
class Workload:
    """An input and its expected result."""

    model: Path
    fasta: Path
    batches: int
    records: int
    lengths: NDArray[np.int64]
    means: NDArray[np.float32]  # [n, D]
    first: int = 0  # number of its first protein

    def part(self, first: int, batches: int, fasta: Path) -> "Workload":
        """Write the input of some batches, from a protein on, as an input of its own."""
        records = slice(first, first + batches * RECORDS_PER_BATCH)
        lines = self.fasta.read_text().splitlines(keepends=True)
        fasta.write_text("".join(lines[2 * records.start : 2 * records.stop]))
        return Workload(
            model=self.model,
            fasta=fasta,
            batches=batches,
            records=records.stop - records.start,
            lengths=self.lengths[records],
            means=self.means[records],
            first=self.first + first,
        )


def make_workload(folder: Path, batches: int, seed: int) -> Workload:
    """Write a model and proteins for ``batches``, and embed them without a fleet."""
    model = save_fair_esm(random_fair_esm(SPEC, seed), folder / "tiny.pt")
    records = draw_proteins(batches * RECORDS_PER_BATCH, seed)
    fasta = folder / "soak.fasta"
    fasta.write_text("".join(f">{record.header}\n{record.residues}\n" for record in records))
    return Workload(
        model=model,
        fasta=fasta,
        batches=batches,
        records=len(records),
        lengths=np.array([len(record.residues) for record in records]),
        means=embed(model, records),
    )


def draw_proteins(count: int, seed: int) -> list[Record]:
    generator = np.random.default_rng(seed)
    firsts = generator.integers(SHORTEST, LONGEST + 1, count // 2).tolist()
    lengths = [length for first in firsts for length in (first, PAIR - first)]
    return [
        Record(row, f"protein{row}", "".join(generator.choice(LETTERS, length)))
        for row, length in enumerate(lengths)
    ]


def embed(model: Path, records: list[Record]) -> NDArray[np.float32]:
    """Return the reference embeddings, computed by the engine alone."""
    loaded = load_model(ModelSource.parse(str(model)), device="cpu", dtype=torch.float32)
    engine, form = Engine(loaded), OutputForm(max_residues=ESM2.max_residues)
    parts = [
        engine.embed(records[first : first + RECORDS_PER_CALL], form).embeddings.pooled["mean"]
        for first in range(0, len(records), RECORDS_PER_CALL)
    ]
    return np.concatenate(parts)


def wrong_rows(workload: Workload, output: Path) -> list[str]:
    """Return what is wrong with the rows of the fetched file; nothing if all are right."""
    with h5py.File(output) as file:
        rows, lengths, means = (file[name][:] for name in ("rows", "lengths", "mean"))
        ids = file["ids"].asstr()[:].tolist()
    if rows.tolist() != list(range(workload.records)):
        missing = sorted(set(range(workload.records)) - set(rows.tolist()))
        return [
            f"{len(rows):,} rows instead of {workload.records:,}, or not in order; "
            f"{len(missing):,} are missing: {missing[:ROWS_NAMED]} …"
        ]
    same = np.array([id_ == f"protein{row}" for row, id_ in enumerate(ids, workload.first)])
    same &= lengths == workload.lengths
    # Not `>`, which is False for NaN.
    same &= (np.abs(means - workload.means) <= TOLERANCE).all(axis=1)
    wrong = np.flatnonzero(~same).tolist()
    return [f"{len(wrong):,} rows differ: {wrong[:ROWS_NAMED]} …"] if wrong else []


def wrong_counts(workload: Workload, progress: Progress, shards: list[str]) -> list[str]:
    """Return the counts of the ledger, or of shards in the store, that are wrong."""
    tokens = workload.batches * BATCH_TOKENS
    counted = {
        "shards in the store": (len(shards), workload.batches),
        "batches done": (progress.batches_done, workload.batches),
        "batches ok": (progress.counts["batches_ok"], workload.batches),
        "rows done": (progress.rows_done, workload.records),
        "tokens done": (progress.tokens_done, tokens),
        "leases left": (progress.leased, 0),
    }
    return [
        f"{name}: {found:,} instead of {expected:,}"
        for name, (found, expected) in counted.items()
        if found != expected
    ]
