"""Staging an input: checking every record, writing every batch, and the manifest last."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from common import __version__
from common.bounded_map import bounded_map
from common.crc import crc32
from common.errors import UserError
from common.job.layout import input_key, job_prefix
from common.job.manifest import InputReport, Manifest, write_manifest
from common.job.records import Record, encode_batch
from common.model_specs import ModelSpec
from common.store import Store
from producer.input.batches import BatchSize, Budget, cut_batches
from producer.input.reader import Reader
from producer.submission.request import Request, job_name


class StagedElsewhereError(UserError):
    """Another producer is staging the job, and owns its objects in the store."""


def stage(
    store: Store,
    request: Request,
    fingerprint: str,
    digest: str | None = None,
    *,
    budget: Budget,
    spec: ModelSpec,
    on_batch: Callable[[int], None] = lambda _records: None,
    hold: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write a job's input objects and its manifest.

    Only the batches that are being written are in memory. On an error, everything of the job is
    deleted from the store.

    Args:
        fingerprint: the request's hash, which names the job.
        digest: of the model's files, if they are on this machine.
        budget: the largest size of a batch.
        spec: the model's shape, for the sizes of batches.
        on_batch: called with the number of records of each batch that was written.
        hold: renews the staging lock, and raises StagedElsewhereError if it was lost.

    Raises:
        UserError: a record is bad, or the store cannot be written.
    """
    job = job_name(request.source, fingerprint)
    reader = Reader(
        request.source,
        alphabet=request.alphabet,
        unknown=request.unknown,
        long=request.long,
        max_residues=request.form.max_residues,
        gaps=request.gaps,
        empty=request.empty,
    )
    store.delete(job_prefix(job))
    sizes, checksums = [], []
    try:
        batches = cut_batches(reader, budget, request.form, spec)
        for size, checksum in write_batches(store, job, batches):
            sizes.append(size)
            checksums.append(checksum)
            on_batch(size.records)
        manifest = manifest_of(request, fingerprint, digest, reader, sizes, checksums)
        hold()
        write_manifest(store, manifest)
    except StagedElsewhereError:
        raise
    except BaseException:
        store.delete(job_prefix(job))
        raise
    return manifest


def write_batches(
    store: Store, job: str, batches: Iterable[tuple[list[Record], BatchSize]]
) -> Iterator[tuple[BatchSize, int]]:
    """Write each batch as an object, several at once; yield sizes and checksums in order."""

    def encoded() -> Iterator[tuple[str, bytes, BatchSize]]:
        # Encodes here, not in the writing threads: the records are still in this core's cache.
        for index, (records, size) in enumerate(batches):
            yield input_key(job, index), encode_batch(records), size

    def write(object_: tuple[str, bytes, BatchSize]) -> tuple[BatchSize, int]:
        key, data, size = object_
        store.put(key, data)
        return size, crc32(data)

    with cycle_collection_off():
        yield from bounded_map(write, encoded(), store.parallel_writes)


def manifest_of(
    request: Request,
    fingerprint: str,
    digest: str | None,
    reader: Reader,
    sizes: Sequence[BatchSize],
    checksums: Sequence[int],
) -> Manifest:
    """Return the manifest of an input that was read to its end."""
    return Manifest(
        package=__version__,
        job=job_name(request.source, fingerprint),
        created=datetime.now(UTC),
        input=request.source.shown.encode(errors="replace").decode(),
        fingerprint=fingerprint,
        input_fingerprint=request.source.fingerprint,
        model=request.model.text,
        model_digest=digest,
        alphabet=request.alphabet.name,
        rung=request.rung,
        priority=request.priority,
        form=request.form,
        report=InputReport(
            records=sum(size.records for size in sizes),
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
        ),
        batch_records=[size.records for size in sizes],
        batch_tokens=[size.tokens for size in sizes],
        input_crc32="".join(f"{checksum:08x}" for checksum in checksums),
    )


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
