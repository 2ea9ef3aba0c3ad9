"""Manifests of small jobs."""

from collections.abc import Sequence
from datetime import UTC, datetime

from common.manifest import InputReport, Manifest, OutputForm
from common.rungs import Rung

#: Of every job that is not told otherwise.
TOKENS_PER_RECORD = 12


def manifest_of(
    batch_records: Sequence[int],
    *,
    job: str = "job-0123456789ab",
    form: OutputForm | None = None,
    rung: Rung = Rung.FP16,
    residues: int | None = None,
    created: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
) -> Manifest:
    """The manifest of a job whose batches have so many records."""
    records = sum(batch_records)
    return Manifest(
        package="0",
        job=job,
        created=created,
        input="in.fa",
        fingerprint="0" * 64,
        model="random:esm2_t6_8M_UR50D",
        rung=rung,
        form=form or OutputForm(max_residues=1022),
        report=InputReport(
            records=records,
            residues=residues if residues is not None else (TOKENS_PER_RECORD - 2) * records,
            truncated=0,
            skipped=0,
            replaced=0,
            duplicate_ids=0,
        ),
        batch_records=list(batch_records),
        batch_tokens=[TOKENS_PER_RECORD * records for records in batch_records],
    )
