"""Submitting a request: staging its input and queuing its batches."""

import time
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from redis.exceptions import RedisError

from common.advice import how_to
from common.job.manifest import InputReport, Manifest, find_job
from common.ledger.ledger import Ledger
from common.ledger.locks import STAGING_SECONDS
from common.ledger.workers import WorkerInfo
from common.model_specs import MODELS, ModelSpec, resolve_layers
from common.rungs import Rung
from common.store import Store, StoreError
from producer.input.batches import Budget, batch_tokens
from producer.scheduling.job_lock import JobLockedError, job_lock
from producer.scheduling.opening import open_job
from producer.scheduling.publisher import Publisher
from producer.submission.earlier import EarlierRows, earlier_rows
from producer.submission.growing import GrowingJob
from producer.submission.new_store import check_mounted
from producer.submission.notes import (
    input_notes,
    input_warnings,
    model_notes,
    new_weights_warning,
    resume_warnings,
    reuse_warnings,
    source_notes,
)
from producer.submission.request import Request, job_name, queue_of_request
from producer.submission.same_weights import find_same_weights
from producer.submission.staging import stage

#: The model that is assumed if only the workers can open the weights: its batches are small enough
#: for any model.
UNKNOWN_MODEL = MODELS["esm2_t48_15B_UR50D"]

#: A function that is called with the numbers of records and batches staged so far.
OnStaged = Callable[[int, int], None]

#: A function that raises if a job must not be queued, for instance because its output has no room.
Check = Callable[[Manifest], None]


@dataclass(frozen=True)
class Hardware:
    """The hardware that will compute a job, as far as it is known: it decides the batch size."""

    on_gpu: bool
    workers: int

    @classmethod
    def of_fleet(cls, workers: Sequence[WorkerInfo], rung: Rung) -> "Hardware":
        """Return the hardware of the workers of a job that begins at a rung.

        Without any: one GPU, or, for a job in FP32, one CPU, as that is what CPUs compute in. A
        GPU's batch would take a CPU more than an hour, in which no number of workers would help.
        """
        if not workers:
            return cls(on_gpu=rung is not Rung.FP32, workers=1)
        return cls(on_gpu=any(worker.device != "CPU" for worker in workers), workers=len(workers))


@dataclass(frozen=True)
class Submission:
    """A submitted job, with notes and warnings for the user."""

    manifest: Manifest
    left: int  # batches that are neither done nor running
    resumed: bool  # whether the job existed before
    notes: tuple[str, ...]  # a sentence for each change to records of the input
    warnings: tuple[str, ...]  # a sentence for each possible reason of an unintended result

    @property
    def job(self) -> str:
        return self.manifest.job

    @property
    def report(self) -> InputReport:
        return self.manifest.report

    def with_warnings(self, more: Iterable[str]) -> "Submission":
        """Return this submission with more warnings."""
        return replace(self, warnings=(*self.warnings, *more))


def submit(
    request: Request,
    store: Store,
    ledger: Ledger,
    publisher: Publisher,
    *,
    hardware: Hardware,
    tokens: int | None,
    weights: Set[str] = frozenset(),
    on_staged: OnStaged = lambda _records, _batches: None,
    check: Check = lambda _manifest: None,
) -> Submission:
    """Stage an input and queue its batches, or resume the job of the same input and options.

    The first batches of a large input are queued while later ones are staged, unless it takes over
    rows of earlier jobs, whose weights would be known late. If a record is bad, nothing of the job
    is left: neither its batches nor what was computed of them.

    Args:
        hardware: the hardware that will compute the job.
        tokens: tokens in a batch; None: about a second's work.
        weights: fingerprints of the weights that workers of the job's queue have.
        on_staged: called with the numbers of records and batches staged so far.
        check: called before anything is queued, and of a large input once more at the end; raises
            if nothing shall be.

    Raises:
        UserError: the input or an option is bad, or the store cannot be written.
    """
    spec = known_shape(request)
    check_mounted(store, ledger)
    store.check_writable()
    digest = request.model.digest()
    fingerprint, manifest, other = find_same_weights(request, store, ledger, digest, weights)
    resumed, growing = manifest is not None, None
    if manifest is None:
        budget = budget_for(request, spec, hardware, tokens)
        earlier = earlier_rows(store, request, digest, weights) if request.reuse else None
        if not request.reuse and can_grow(ledger, request):
            now = partial(time_of_staging, ledger, job_name(request.source, fingerprint))
            growing = GrowingJob(store, ledger, publisher, request.on_instability, now)
        manifest = stage_alone(
            *(request, store, ledger, fingerprint, budget, spec, on_staged, digest),
            check=check,
            earlier=earlier,
            growing=growing,
        )
    else:
        check(manifest)
    try:
        if growing is not None and growing.created == manifest.created:
            left = growing.finish(manifest)
        else:
            left = open_job(store, ledger, publisher, manifest, request.on_instability)
    except RedisError as error:
        error.add_note(how_to("resume", manifest.job))
        raise
    warnings = [
        *input_warnings(request.model, looks_like_dna=manifest.report.looks_like_dna),
        *resume_warnings(ledger, manifest, request),
        *reuse_warnings(request, manifest, resumed=resumed),
    ]
    if other is not None:
        warnings.append(new_weights_warning(manifest, other))
    notes = [
        *source_notes(request),
        *input_notes(manifest),
        *model_notes(request),
    ]
    return Submission(manifest, left, resumed, tuple(notes), tuple(warnings))


def can_grow(ledger: Ledger, request: Request) -> bool:
    """Return whether all workers of a job would compute it while it is staged."""
    queue = queue_of_request(request)
    return all(worker.staging for worker in ledger.workers.all() if queue in worker.queues)


def known_shape(request: Request) -> ModelSpec:
    """Return the model's shape, or the largest one's if only a worker can tell.

    Raises:
        UserError: the model does not have these layers.
    """
    spec = request.model.spec()
    if spec is not None:
        resolve_layers(request.form.layers, spec.layers)
    return spec or UNKNOWN_MODEL


def budget_for(request: Request, spec: ModelSpec, hardware: Hardware, tokens: int | None) -> Budget:
    """Return the largest size of a batch: ``tokens``, or about a second's work of the hardware."""
    if tokens is None:
        tokens = batch_tokens(
            spec,
            on_gpu=hardware.on_gpu,
            workers=hardware.workers,
            # Where each residue is masked, a record has many more tokens than bytes.
            input_bytes=None if request.form.masks else request.source.estimated_bytes(),
        )
    return Budget(tokens=tokens)


def stage_alone(
    request: Request,
    store: Store,
    ledger: Ledger,
    fingerprint: str,
    budget: Budget,
    spec: ModelSpec,
    on_staged: OnStaged = lambda _records, _batches: None,
    digest: str | None = None,
    *,
    check: Check = lambda _manifest: None,
    earlier: EarlierRows | None = None,
    growing: GrowingJob | None = None,
) -> Manifest:
    """Stage the input unless another producer is staging it.

    Returns:
        The manifest; another producer's, if one has just finished staging this job.

    Raises:
        JobLockedError: another producer is staging this job.
    """
    job = job_name(request.source, fingerprint)
    batches = records = 0
    with job_lock(ledger, job) as hold:
        held = time.time()

        def count(more: int) -> None:
            nonlocal batches, records
            batches, records = batches + 1, records + more
            on_staged(records, batches)

        def keep(check: Callable[[], None]) -> None:
            nonlocal held
            # Not the monotonic clock, which stops while a laptop sleeps.
            if abs(time.time() - held) < STAGING_SECONDS / 12:
                return
            with suppress(RedisError):  # it may be restarting; the lock is renewed at the end
                hold()
            if abs(time.time() - held) >= STAGING_SECONDS:
                check()  # another may have had the lock, though this Redis knows of none
            held = time.time()

        # Another producer may have staged it since the caller looked.
        existing = find_job(store, job)
        if existing is not None:
            return existing
        try:
            return stage(
                *(store, request, fingerprint, digest),
                budget=budget,
                spec=spec,
                created=lambda: time_of_staging(ledger, job),
                on_batch=count,
                check=check,
                keep=keep,
                hold=hold,
                earlier=earlier,
                growing=growing,
            )
        except (JobLockedError, StoreError):
            # One that had the lock meanwhile deletes what others had staged.
            existing = find_job(store, job)
            if existing is None:
                raise
            return existing


def time_of_staging(ledger: Ledger, job: str) -> datetime:
    """Return the time, but later than that of an earlier staging, whatever the clocks say."""
    earlier = ledger.jobs.progress(job)
    now = ledger.now()
    if earlier is None or earlier.created < now.timestamp():
        return now
    return datetime.fromtimestamp(earlier.created, UTC) + timedelta(milliseconds=1)
