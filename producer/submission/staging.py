"""Staging an input: checking every record, writing every batch, and the manifest last."""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

from redis.exceptions import RedisError

from common import __version__
from common.job.layout import (
    closed_key,
    output_prefix,
    quarantine_prefix,
)
from common.job.manifest import (
    InputReport,
    Manifest,
    SourceRecords,
    checksums_text,
    find_job,
    read_manifest,
    write_manifest,
)
from common.model_specs import ModelSpec
from common.store import ObjectExistsError, Store, StoreError
from producer.input.batches import Budget
from producer.input.reader import Reader
from producer.scheduling.job_lock import JobLockedError
from producer.submission.batch_objects import StagedBatch
from producer.submission.earlier import EarlierRows
from producer.submission.input_keys import InputKeys
from producer.submission.request import Request, job_name, reader_of
from producer.submission.staged_batches import staged_batches


def stage(
    store: Store,
    request: Request,
    fingerprint: str,
    digest: str | None = None,
    *,
    budget: Budget,
    spec: ModelSpec,
    created: Callable[[], datetime],
    on_batch: Callable[[int], None] = lambda _records: None,
    check: Callable[[Manifest], None] = lambda _manifest: None,
    keep: Callable[[Callable[[], None]], None] = lambda _check: None,
    hold: Callable[[], None] = lambda: None,
    earlier: EarlierRows | None = None,
    processes: int | None = None,
) -> Manifest:
    """Write a job's input objects and its manifest.

    Only the batches that are being written are in memory. The input objects are this staging's
    alone, and on an error nothing else is deleted: whoever writes the manifest first, has the job.

    Args:
        fingerprint: the request's hash, which names the job.
        digest: of the model's files, if they are on this machine.
        budget: the largest size of a batch.
        spec: the model's shape, for the sizes of batches.
        created: returns the time, once all batches are written.
        on_batch: called with the number of rows of each batch that was written.
        check: called before the manifest is written; raises if there shall be no such job.
        keep: called before each batch is written, with what to check after a long pause; raises if
            this producer slept and lost the lock.
        hold: renews the job's lock; raises if another producer had it meanwhile.
        earlier: what earlier jobs have computed, and is not computed again.
        processes: that stage the input; None: as many as its size and the CPUs give. The result is
            the same.

    Returns:
        The manifest; another producer's, if that was faster.

    Raises:
        UserError: a record is bad, or the store cannot be written.
    """
    job = job_name(request.source, fingerprint)
    reader = reader_of(request)
    keys = InputKeys(store, job, hold)
    staged: list[StagedBatch] = []
    at: datetime | None = None
    try:
        keys.check()  # they are free again once another has done the whole
        batches = staged_batches(
            *(store, request, job, keys.staging, reader),
            budget=budget,
            spec=spec,
            earlier=earlier,
            keep=lambda: keep(keys.check),
            processes=processes,
        )
        with closing(batches):  # on an error nothing is written any more
            for batch in batches:
                staged.append(batch)
                on_batch(batch.size.rows)
        hold()
        at = created()
        weights = "" if earlier is None else str(earlier.attributes["weights"])
        manifest = manifest_of(
            *(request, fingerprint, digest, at, keys.staging), reader, staged, weights
        )
        check(manifest)
        delete_leftovers(store, job, keys.check_held)
        keys.check_held()
        write_manifest(store, manifest, replace=False)
    except ObjectExistsError:
        manifest = read_manifest(store, job)
        if manifest.created != at:
            keys.give_up()
            return manifest
    except BaseException:
        with suppress(StoreError, RedisError, JobLockedError):
            # The answer to the last write may have been lost.
            found = find_job(store, job)
            if found is None or found.created != at:
                keys.delete_objects()
        raise
    with suppress(RedisError, JobLockedError):  # the job is staged: what is left does no harm
        keys.delete_dead()
    return manifest


def delete_leftovers(store: Store, job: str, check: Callable[[], None]) -> None:
    """Delete what is left of an earlier job of the same name, which has no manifest any more.

    Args:
        check: raises if it has one.
    """
    for prefix in (closed_key(job), output_prefix(job), quarantine_prefix(job)):
        if any(True for _ in store.keys(prefix)):
            store.delete(prefix, check)


def manifest_of(
    request: Request,
    fingerprint: str,
    digest: str | None,
    created: datetime,
    staging: str,
    reader: Reader,
    staged: Sequence[StagedBatch],
    weights: str = "",
) -> Manifest:
    """Return the manifest of an input that was read to its end.

    Args:
        weights: the fingerprint of those of the rows of earlier jobs.
    """
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
        elsewhere["reused_weights"] = weights
    return Manifest(
        package=__version__,
        job=job_name(request.source, fingerprint),
        created=created,
        staging=staging,
        owner=request.owner,
        input=as_text(request.source.shown),
        sources=sources_of(request, reader),
        fingerprint=fingerprint,
        input_fingerprint=request.source.fingerprint,
        model=request.model.text,
        model_digest=digest,
        alphabet=request.alphabet.name,
        rung=request.rung,
        priority=request.priority,
        form=request.form,
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
        batch_records=[size.records for size in sizes],
        batch_tokens=[size.tokens for size in sizes],
        input_crc32=checksums_text(batch.input_crc32 for batch in staged),
        **elsewhere,
    )


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
