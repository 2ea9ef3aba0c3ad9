"""Staging an input: every record checked, every batch written, the manifest last."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from common import __version__
from common.bounded_map import bounded_map
from common.errors import UserError
from common.job.layout import input_key, job_prefix
from common.job.manifest import InputReport, Manifest, write_manifest
from common.job.records import encode_batch
from common.model_specs import ModelSpec
from common.store import Store
from producer.input.batches import BatchSize, Budget, cut_batches
from producer.input.reader import Reader
from producer.submission.request import Request, job_name


class StagedElsewhereError(UserError):
    """A job that another producer is staging: what the store has of it is that producer's."""


def stage(
    store: Store,
    request: Request,
    fingerprint: str,
    *,
    budget: Budget,
    spec: ModelSpec,
    on_batch: Callable[[int], None] = lambda _records: None,
    hold: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write a job's input objects and its manifest.

    Memory holds the few batches that are being written and two numbers for each of the rest. If
    anything goes wrong, nothing of the job stays in the store.

    Args:
        fingerprint: the request's hash, which names the job.
        budget: what a batch may hold.
        spec: the model's shape, for the sizes of batches.
        on_batch: receives the number of records in each batch that was written.
        hold: raises StagedElsewhereError if another producer stages the job by now.

    Raises:
        UserError: a bad record, or a store that cannot be written.
    """
    job = job_name(request.source, fingerprint)
    reader = Reader(
        request.source,
        alphabet=request.alphabet,
        unknown=request.unknown,
        long=request.long,
        max_residues=request.form.max_residues,
    )
    store.delete(job_prefix(job))

    def encoded() -> Iterator[tuple[str, bytes, BatchSize]]:
        # Not in the writing threads: here the records are still in this core's cache.
        for index, (records, size) in enumerate(batches):
            yield input_key(job, index), encode_batch(records), size

    def write(object_: tuple[str, bytes, BatchSize]) -> BatchSize:
        key, data, size = object_
        store.put(key, data)
        return size

    batches = cut_batches(reader, budget, request.form, spec)
    sizes = []
    try:
        with cycle_collection_off():
            for size in bounded_map(write, encoded(), store.parallel_writes):
                sizes.append(size)
                on_batch(size.records)
        manifest = Manifest(
            package=__version__,
            job=job,
            created=datetime.now(UTC),
            input=(request.source.label or request.source.name).encode(errors="replace").decode(),
            fingerprint=fingerprint,
            model=request.model.text,
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
            ),
            batch_records=[size.records for size in sizes],
            batch_tokens=[size.tokens for size in sizes],
        )
        hold()
        write_manifest(store, manifest)
    except StagedElsewhereError:
        raise
    except BaseException:
        store.delete(job_prefix(job))
        raise
    return manifest


@contextmanager
def cycle_collection_off() -> Iterator[None]:
    """Turn off the collector of cycles: there are very many records, and they form none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
