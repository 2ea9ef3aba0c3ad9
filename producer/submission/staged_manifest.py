"""The manifest of a job from what was staged."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common import __version__
from common.job.manifest import InputReport, Manifest, SourceRecords, checksums_text
from producer.input.reader import Reader
from producer.submission.batch_objects import StagedBatch
from producer.submission.request import Request, job_name


@dataclass(frozen=True)
class Described:
    """What is known of a job before anything of it is staged.

    Args:
        digest: of the model's files, if they are on this machine.
        staging: the name of the staging in the keys of its objects.
        weights: the fingerprint of those of the rows of earlier jobs; empty: there are none.
    """

    request: Request
    fingerprint: str
    digest: str | None
    staging: str
    weights: str

    @property
    def job(self) -> str:
        return job_name(self.request.source, self.fingerprint)

    def manifest(
        self, created: datetime, reader: Reader, staged: Sequence[StagedBatch]
    ) -> Manifest:
        """Return the manifest of an input that was read to its end."""
        sizes = [batch.size for batch in staged]
        identical, reused = sum(size.copies for size in sizes), sum(size.reused for size in sizes)
        elsewhere: dict[str, Any] = {}
        if identical:
            elsewhere = {
                "batch_copies": [size.copies for size in sizes],
                "copies_crc32": checksums_text(batch.copies_crc32 for batch in staged),
                "batch_rows": [batch.first_row for batch in staged],
            }
        if reused:
            elsewhere["batch_reused"] = [size.reused for size in sizes]
            elsewhere["reused_weights"] = self.weights
        return Manifest(
            **self._fields(created, staged),
            **elsewhere,
            sources=sources_of(self.request, reader),
            report=InputReport(
                records=sum(size.rows for size in sizes),
                residues=sum(size.residues for size in sizes),
                pairs=sum(size.pairs for size in sizes),
                long=reader.long_records,
                skipped=reader.skipped,
                replaced=reader.replaced,
                duplicate_ids=reader.duplicate_ids(),
                looks_like_dna=reader.looks_like_dna,
                like_dna=reader.like_dna,
                gapped=reader.gapped,
                stripped=reader.stripped,
                rna=reader.rna,
                empty=reader.empty,
                short=reader.short,
                molecule=reader.molecule,
                identical=identical,
                reused=reused,
            ),
        )

    def opening(self, created: datetime, staged: Sequence[StagedBatch]) -> Manifest:
        """Return the manifest of the records that are computed so far, for those who compute."""
        records = sum(batch.size.records for batch in staged)
        report = InputReport(
            records=records, residues=0, long=0, skipped=0, replaced=0, duplicate_ids=0
        )
        return Manifest(**self._fields(created, staged), report=report)

    def _fields(self, created: datetime, staged: Sequence[StagedBatch]) -> dict[str, Any]:
        request = self.request
        return {
            "package": __version__,
            "job": self.job,
            "created": created,
            "staging": self.staging,
            "owner": request.owner,
            "input": as_text(request.source.shown),
            "fingerprint": self.fingerprint,
            "input_fingerprint": request.source.fingerprint,
            "model": request.model.text,
            "model_digest": self.digest,
            "alphabet": request.alphabet.name,
            "rung": request.rung,
            "priority": request.priority,
            "form": request.form,
            "batch_records": [batch.size.records for batch in staged],
            "batch_tokens": [batch.size.tokens for batch in staged],
            "input_crc32": checksums_text(batch.input_crc32 for batch in staged),
        }


def sources_of(request: Request, reader: Reader) -> tuple[SourceRecords, ...]:
    """Return what was read from each source; of a single one nothing, as earlier versions did."""
    parts = request.source.parts
    if len(parts) == 1:
        return ()
    return tuple(
        SourceRecords(name=as_text(part.shown), records=records)
        for part, records in zip(parts, reader.records_of, strict=True)
    )


def as_text(name: str) -> str:
    """Return a file's name as text, which it need not be."""
    return name.encode(errors="replace").decode()
