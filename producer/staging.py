"""An input into the store: every record checked, every batch written, the manifest last."""

import gc
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from common import __version__
from common.ahead import map_ahead
from common.alphabet import SPECIAL_TOKENS
from common.batchfile import encode_batch
from common.layout import input_key, job_prefix
from common.manifest import InputReport, Manifest, OutputForm, read_manifest, write_manifest
from common.modeltable import ModelSource
from common.rungs import Rung
from common.store import ObjectNotFoundError, Store
from producer.batches import Budget, cut_batches
from producer.reader import Long, Reader, Unknown
from producer.source import Source


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for with ``producer submit``."""

    source: Source
    model: ModelSource
    rung: Rung
    form: OutputForm
    unknown: Unknown
    long: Long

    def fingerprint(self) -> str:
        """Names the input's bytes and every option that changes the output."""
        options = {
            "input": self.source.fingerprint(),
            "model": self.model.text,
            "rung": self.rung,
            "form": self.form.model_dump(),
            "unknown": self.unknown,
            "long": self.long,
        }
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def job_name(source: Source, fingerprint: str) -> str:
    """A readable name, safe in paths, keys and URLs, the same for the same work."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem)[:40].strip("-") or "job"
    return f"{stem}-{fingerprint[:12]}"


def find_job(store: Store, job: str) -> Manifest | None:
    try:
        return read_manifest(store, job)
    except ObjectNotFoundError:
        return None


def stage(
    store: Store,
    request: Request,
    fingerprint: str,
    *,
    budget: Budget,
    dim: int,
    on_batch: Callable[[int, int], None] = lambda _records, _tokens: None,
) -> Manifest:
    """Write a job's input objects and its manifest.

    Memory holds the few batches that are being written and two numbers for each of the rest. If
    anything goes wrong, nothing of the job stays in the store.

    Args:
        fingerprint: of the request; names the job.
        budget: of a batch.
        dim: the model's width, for the size of a shard.
        on_batch: is told the records and tokens of each batch that was written.

    Raises:
        UserError: a bad record, or a store that cannot be written.
    """
    job = job_name(request.source, fingerprint)
    reader = Reader(
        request.source,
        unknown=request.unknown,
        long=request.long,
        max_residues=request.form.max_residues,
    )
    store.delete(job_prefix(job))

    def encoded() -> Iterator[tuple[str, bytes, int, int]]:
        # Here and not in the writing threads: the records are still in this core's cache.
        for index, (records, tokens) in enumerate(batches):
            yield input_key(job, index), encode_batch(records), len(records), tokens

    def write(object_: tuple[str, bytes, int, int]) -> tuple[int, int]:
        key, data, records, tokens = object_
        store.put(key, data)
        return records, tokens

    batches = cut_batches(reader, budget, request.form, dim)
    sizes = []
    try:
        with cycles_left_alone():
            for size in map_ahead(write, encoded(), store.parallel_writes):
                sizes.append(size)
                on_batch(*size)
        records = sum(records for records, _ in sizes)
        manifest = Manifest(
            package=__version__,
            job=job,
            created=datetime.now(UTC),
            input=request.source.name.encode(errors="replace").decode(),
            fingerprint=fingerprint,
            model=request.model.text,
            rung=request.rung,
            form=request.form,
            report=InputReport(
                records=records,
                residues=sum(tokens for _, tokens in sizes) - SPECIAL_TOKENS * records,
                truncated=reader.truncated,
                skipped=reader.skipped,
                replaced=reader.replaced,
                duplicate_ids=reader.duplicate_ids(),
            ),
            batch_records=[records for records, _ in sizes],
            batch_tokens=[tokens for _, tokens in sizes],
        )
        write_manifest(store, manifest)
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
