"""Manifests of small jobs, and results of their batches."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from common.job.manifest import InputReport, Manifest
from common.job.output_form import OutputForm
from common.ledger.progress import JobState, Progress
from common.rungs import NEXT_RUNG, Rung
from common.wire.messages import Batch, BatchResult, Instability, NonFinite, Status, retry_of

#: Default number of residues of every record.
TOKENS_PER_RECORD = 12
LETTERS_PER_RECORD = TOKENS_PER_RECORD - 2

#: The description of every row that is not finite.
SEEN = NonFinite(nan=3, inf=1, finite_min=-65504.0, finite_max=2.5)


def manifest_of(
    batch_records: Sequence[int],
    *,
    job: str = "job-0123456789ab",
    form: OutputForm | None = None,
    rung: Rung = Rung.FP16,
    model: str = "random:esm2_t6_8M_UR50D",
    alphabet: Literal["protein", "dna"] = "protein",
    residues: int | None = None,
    created: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    **report: int | bool,
) -> Manifest:
    """Return the manifest of a job whose batches have these numbers of records."""
    records = sum(batch_records)
    counts = {"long": 0, "skipped": 0, "replaced": 0, "duplicate_ids": 0} | report
    return Manifest(
        package="0",
        job=job,
        created=created,
        input="in.fa",
        fingerprint="0" * 64,
        model=model,
        alphabet=alphabet,
        rung=rung,
        form=form or OutputForm(max_residues=1022),
        report=InputReport(
            records=records,
            residues=residues if residues is not None else LETTERS_PER_RECORD * records,
            **counts,
        ),
        batch_records=list(batch_records),
        batch_tokens=[TOKENS_PER_RECORD * records for records in batch_records],
    )


def ok(batch: Batch, *, worker: str = "a", precision: Rung | None = None) -> BatchResult:
    """Return a result in which all rows are finite."""
    return BatchResult(
        job=batch.job,
        index=batch.index,
        rung=batch.rung,
        previous_rung=batch.previous_rung,
        created=batch.created,
        status=Status.OK,
        worker=worker,
        precision=precision or batch.rung,
        records=batch.records,
        tokens=batch.records * TOKENS_PER_RECORD,
        seconds=0.25,
    )


def unstable(
    batch: Batch, *rows: int, precision: Rung | None = None, stops_job: bool = False
) -> BatchResult:
    """Return a result in which these rows (by default row 0) are not finite."""
    precision = precision or batch.rung
    rows = rows or (0,)
    bad = [Instability(row=row, id=f"r{row}", length=LETTERS_PER_RECORD) for row in rows]
    kept = batch.records - len(rows)
    return ok(batch, precision=precision).model_copy(
        update={
            "status": Status.NUMERICAL_INSTABILITY,
            "records": kept,
            "tokens": TOKENS_PER_RECORD * kept,
            "unstable": tuple(b.model_copy(update={"seen": {precision: SEEN}}) for b in bad),
            "next": NEXT_RUNG[precision],
            "stops_job": stops_job,
        }
    )


def poisoned(batch: Batch, *rows: int, precision: Rung | None = None) -> BatchResult:
    """Return a result in which these rows (by default row 0) crash their process."""
    rows = rows or (0,)
    kept = batch.records - len(rows)
    return ok(batch, precision=precision).model_copy(
        update={
            "status": Status.POISONED,
            "records": kept,
            "tokens": TOKENS_PER_RECORD * kept,
            "poisoned": tuple(
                Instability(row=row, id=f"r{row}", length=LETTERS_PER_RECORD, reason="it ends")
                for row in rows
            ),
        }
    )


def failed(batch: Batch) -> BatchResult:
    """Return the result of a batch that failed."""
    return BatchResult(
        job=batch.job,
        index=batch.index,
        rung=batch.rung,
        previous_rung=batch.previous_rung,
        created=batch.created,
        status=Status.FAILED,
        worker="a",
        error="ValueError: no",
    )


def retry_after(manifest: Manifest, result: BatchResult) -> Batch:
    """Return the retry that follows a result."""
    return retry_of(manifest.batch(result.index), result)


def progress(state: JobState = JobState.OPEN, queue: str = "m.fp16", **counts: int) -> Progress:
    """Return the counters of a job with at least a thousand batches."""
    return Progress(
        job="in-0123",
        state=state,
        model="m",
        queue=queue,
        first_rung=Rung(queue.rpartition(".")[2]),
        created=0,
        batches=1200,
        records=50_000,
        tokens=1_000_000,
        published=0,
        waiting=0,
        leased=0,
        counts=Counter(counts),
        weights=None,
    )
