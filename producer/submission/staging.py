"""Staging an input: checking every record, writing every batch, and the manifest last."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from common import __version__
from common.bounded_map import bounded_map
from common.crc import crc32
from common.job.copies import encode_copies
from common.job.layout import (
    closed_key,
    copies_key,
    input_key,
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
from common.job.records import Record, encode_batch
from common.model_specs import ModelSpec
from common.store import ObjectExistsError, Store, StoreError
from producer.input.batches import BatchSize, Budget, CutBatch, cut_batches
from producer.input.identical import Chunk, with_originals, without_originals
from producer.input.reader import Reader
from producer.scheduling.job_lock import JobLockedError
from producer.submission.input_keys import InputKeys
from producer.submission.request import Request, job_name


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
        batches = cut_batches(chunks_of(request, reader), budget, request.form, spec)
        for batch in write_batches(
            *(store, job, keys.staging, batches), keep=lambda: keep(keys.check)
        ):
            staged.append(batch)
            on_batch(batch.size.rows)
        hold()
        at = created()
        manifest = manifest_of(*(request, fingerprint, digest, at, keys.staging), reader, staged)
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


def reader_of(request: Request) -> Reader:
    """Return the reader of a request's input."""
    return Reader(
        request.source,
        alphabet=request.alphabet,
        unknown=request.unknown,
        long=request.long,
        max_residues=request.form.max_residues,
        gaps=request.gaps,
        empty=request.empty,
        columns=request.columns,
        min_length=request.min_length,
        short=request.short,
        molecule=request.molecule,
    )


def chunks_of(request: Request, records: Iterable[Record]) -> Iterator[Chunk]:
    """Yield a request's records, with the originals of those that are not computed."""
    return with_originals(records) if request.dedup else without_originals(records)


def delete_leftovers(store: Store, job: str, check: Callable[[], None]) -> None:
    """Delete what is left of an earlier job of the same name, which has no manifest any more.

    Args:
        check: raises if it has one.
    """
    for prefix in (closed_key(job), output_prefix(job), quarantine_prefix(job)):
        if any(True for _ in store.keys(prefix)):
            store.delete(prefix, check)


class StagedBatch(NamedTuple):
    """What is known of a batch whose objects are written."""

    size: BatchSize
    first_row: int
    input_crc32: int
    copies_crc32: int


def write_batches(
    store: Store,
    job: str,
    staging: str,
    batches: Iterable[CutBatch],
    keep: Callable[[], None],
) -> Iterator[StagedBatch]:
    """Write each batch's input and copies as objects, several at once; yield them in order."""

    def encoded() -> Iterator[tuple[int, bytes, bytes, BatchSize, int]]:
        # Encodes here, not in the writing threads: the records are still in this core's cache.
        for index, (records, copies, size) in enumerate(batches):
            yield index, encode_batch(records), encode_copies(copies), size, records[0].row

    def write(batch: tuple[int, bytes, bytes, BatchSize, int]) -> StagedBatch:
        index, data, copies, size, first_row = batch
        keep()
        store.put(input_key(job, index, staging), data)
        if copies:
            store.put(copies_key(job, index, staging), copies)
        return StagedBatch(size, first_row, crc32(data), crc32(copies))

    with cycle_collection_off():
        yield from bounded_map(write, encoded(), store.parallel_writes)


def manifest_of(
    request: Request,
    fingerprint: str,
    digest: str | None,
    created: datetime,
    staging: str,
    reader: Reader,
    staged: Sequence[StagedBatch],
) -> Manifest:
    """Return the manifest of an input that was read to its end."""
    sizes = [batch.size for batch in staged]
    identical = sum(size.copies for size in sizes)
    of_copies: dict[str, Any] = {}
    if identical:
        of_copies = {
            "batch_copies": [size.copies for size in sizes],
            "copies_crc32": checksums_text(batch.copies_crc32 for batch in staged),
            "batch_rows": [batch.first_row for batch in staged],
        }
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
        ),
        batch_records=[size.records for size in sizes],
        batch_tokens=[size.tokens for size in sizes],
        input_crc32=checksums_text(batch.input_crc32 for batch in staged),
        **of_copies,
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


@contextmanager
def cycle_collection_off() -> Iterator[None]:
    """Turn the cyclic garbage collector off: there are very many records, without any cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
