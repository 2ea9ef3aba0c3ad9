"""An input into the store: every record checked, every batch written, the manifest last."""

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
    """Another producer stages this very job, and what is in the store is its."""


def stage(
    store: Store,
    request: Request,
    fingerprint: str,
    *,
    budget: Budget,
    spec: ModelSpec,
    on_batch: Callable[[int], None] = lambda _records: None,
    still_ours: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write a job's input objects and its manifest.

    Memory holds the few batches that are being written and two numbers for each of the rest. If
    anything goes wrong, nothing of the job stays in the store.

    Args:
        fingerprint: of the request; names the job.
        budget: of a batch.
        spec: the model's shape, for the sizes of batches.
        on_batch: is told the records of each batch that was written.
        still_ours: raises StagedElsewhereError if another producer stages the job meanwhile.

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
        # Here and not in the writing threads: the records are still in this core's cache.
        for index, (records, size) in enumerate(batches):
            yield input_key(job, index), encode_batch(records), size

    def write(object_: tuple[str, bytes, BatchSize]) -> BatchSize:
        key, data, size = object_
        store.put(key, data)
        return size

    batches = cut_batches(reader, budget, request.form, spec)
    sizes = []
    try:
        with cycles_left_alone():
            for size in bounded_map(write, encoded(), store.parallel_writes):
                sizes.append(size)
                on_batch(size.records)
        manifest = Manifest(
            package=__version__,
            job=job,
            created=datetime.now(UTC),
            input=request.source.name.encode(errors="replace").decode(),
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
        still_ours()
        write_manifest(store, manifest)
    except StagedElsewhereError:
        raise
    except BaseException:
        store.delete(job_prefix(job))
        raise
    return manifest


@contextmanager
def cycles_left_alone() -> Iterator[None]:
    """Do not search for garbage in cycles: records make none, and there are a great many."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
