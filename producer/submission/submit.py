"""Submitting a request: staging its input and queuing its batches."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from common.alphabet import ALPHABETS
from common.job.manifest import InputReport, Manifest, find_job
from common.ledger.ledger import Ledger
from common.ledger.locks import STAGING_SECONDS
from common.ledger.workers import WorkerInfo
from common.model_specs import MODELS, ModelSpec, resolve_layers
from common.store import Store, check_writable
from common.text import counted, counted_batches
from common.wire.queues import queue_name
from producer.input.batches import Budget, batch_tokens
from producer.scheduling.opening import job_queue, model_of, open_job
from producer.scheduling.publisher import Publisher
from producer.scheduling.waiting import have_other_weights
from producer.submission.request import Request, job_name, worker_command
from producer.submission.staging import StagedElsewhereError, stage

#: The model that is assumed if only the workers can open the weights: its batches are small enough
#: for any model.
UNKNOWN_MODEL = MODELS["esm2_t48_15B_UR50D"]

MEANINGLESS = (
    "{model} has random weights: these embeddings are meaningless, and only good for testing the "
    "fleet."
)

#: A function that is called with the numbers of records and batches staged so far.
OnStaged = Callable[[int, int], None]


@dataclass(frozen=True)
class Hardware:
    """The hardware that will compute a job, as far as it is known: it decides the batch size."""

    on_gpu: bool
    workers: int

    @classmethod
    def of_fleet(cls, workers: Sequence[WorkerInfo]) -> "Hardware":
        """Return the hardware of some workers; one GPU if there are none."""
        if not workers:
            return cls(on_gpu=True, workers=1)
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
    on_staged: OnStaged = lambda _records, _batches: None,
) -> Submission:
    """Stage an input and queue its batches, or resume the job of the same input and options.

    Nothing is queued before every record is checked and every batch is in the store.

    Args:
        hardware: the hardware that will compute the job.
        tokens: tokens in a batch; None: about a second's work.
        on_staged: called with the numbers of records and batches staged so far.

    Raises:
        UserError: the input or an option is bad, or the store cannot be written.
    """
    spec = known_shape(request)
    check_writable(store)
    fingerprint = request.fingerprint()
    manifest = find_job(store, job_name(request.source, fingerprint))
    resumed = manifest is not None
    if manifest is None:
        budget = budget_for(request, spec, hardware, tokens)
        manifest = stage_alone(request, store, ledger, fingerprint, budget, spec, on_staged)
    left = open_job(store, ledger, publisher, manifest, request.on_instability)
    warnings = [*input_warnings(manifest), *(resume_warnings(ledger, manifest, request))]
    return Submission(manifest, left, resumed, tuple(input_notes(manifest)), tuple(warnings))


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
            input_bytes=request.source.estimated_bytes(),
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
) -> Manifest:
    """Stage the input unless another producer is staging it.

    Returns:
        The manifest; another producer's, if one has just finished staging this job.

    Raises:
        StagedElsewhereError: another producer is staging this job.
    """
    job = job_name(request.source, fingerprint)
    batches = records = 0
    with staging_lock(ledger, job) as hold:
        held = time.monotonic()

        def count(more: int) -> None:
            nonlocal batches, records, held
            batches, records = batches + 1, records + more
            on_staged(records, batches)
            if time.monotonic() - held >= STAGING_SECONDS / 12:
                hold()
                held = time.monotonic()

        # Another producer may have staged it since the caller looked; staging would delete it.
        existing = find_job(store, job)
        if existing is not None:
            return existing
        return stage(
            store, request, fingerprint, budget=budget, spec=spec, on_batch=count, hold=hold
        )


@contextmanager
def staging_lock(ledger: Ledger, job: str) -> Iterator[Callable[[], None]]:
    """Hold a job's staging lock; yield the function that renews it.

    Raises:
        StagedElsewhereError: another producer holds the lock, or took it since the last renewal.
    """
    owner = uuid.uuid4().hex

    def hold() -> None:
        if not ledger.locks.hold_staging(job, owner):
            raise StagedElsewhereError(
                f"Job {job} is being submitted by another producer at this moment. Wait for it: "
                f"producer watch {job}"
            )

    hold()
    try:
        yield hold
    finally:
        ledger.locks.release_staging(job, owner)


# --- notes and warnings for the user ------------------------------------------------------------


def describe_input(manifest: Manifest) -> str:
    """Return a sentence about the records read and the queue of their batches."""
    report, letters = manifest.report, ALPHABETS[manifest.alphabet]
    return (
        f"{manifest.input}: {counted(report.records, 'record')}, {report.residues:,} "
        f"{letters.plural} to embed, in {counted_batches(manifest.batches)} for queue "
        f"{job_queue(manifest)}."
    )


def input_notes(manifest: Manifest) -> list[str]:
    """Return a sentence for each kind of change to records of the input."""
    report, letters = manifest.report, ALPHABETS[manifest.alphabet]
    notes = {
        describe_long(manifest): report.long,
        "with the id of an earlier record: all are kept, each under its row number": (
            report.duplicate_ids
        ),
        f"with unknown letters, embedded as {letters.unknown}": report.replaced,
        "with unknown letters, left out; rows keep their position in the input": report.skipped,
    }
    return [f"{counted(count, 'record')} {what}." for what, count in notes.items() if count]


def describe_long(manifest: Manifest) -> str:
    form, letters = manifest.form, ALPHABETS[manifest.alphabet].plural
    longer = f"longer than {form.max_residues:,} {letters}"
    if form.overlap is None:
        return f"{longer}: only that many of each were kept (--long error refuses them)"
    return (
        f"{longer}: embedded in windows of {form.max_residues:,} that overlap by at least "
        f"{form.overlap:,}, pooled by their tokens"
    )


def input_warnings(manifest: Manifest) -> Iterator[str]:
    """Yield a warning for each reason why all embeddings of a job may be useless."""
    if model_of(manifest).is_random:
        yield MEANINGLESS.format(model=manifest.model)
    if manifest.report.looks_like_dna:
        yield (
            "the first records contain only the letters A, C, G, T, U and N, but this model is for "
            "proteins. For DNA give --model dnabert_s."
        )


def resume_warnings(ledger: Ledger, manifest: Manifest, request: Request) -> Iterator[str]:
    """Yield a warning for each option of the request that comes too late for an existing job."""
    if manifest.priority is not request.priority:
        yield f"the job keeps the priority of its first submission, {manifest.priority}."
    progress = ledger.jobs.progress(manifest.job)
    if request.on_instability == "fail" and progress is not None and progress.finished:
        unstable = progress.unstable_at(request.rung)
        if unstable:
            yield (
                f"{counted(unstable, 'sequence')} of this finished job had no finite embedding at "
                "the first rung; --on-instability fail comes too late for them."
            )


def queue_of_request(request: Request) -> str:
    return queue_name(request.model, request.rung, request.rung, request.priority)


def worker_warnings(
    ledger: Ledger, job: str, request: Request, workers: Sequence[WorkerInfo]
) -> Iterator[str]:
    """Yield a warning for each reason why no running worker would compute a job."""
    queue = queue_of_request(request)
    serving = [worker for worker in workers if queue in worker.queues]
    if not serving:
        yield f"no worker serves {queue} yet. Start one: {worker_command(request)}"
        if others := {w.precision for w in workers if w.model == request.model.text}:
            yield f"workers of this model run in {', '.join(sorted(others))}: see --precision."
    yield from other_weights_warning(ledger, job, serving)


def other_weights_warning(ledger: Ledger, job: str, serving: Sequence[WorkerInfo]) -> Iterator[str]:
    progress = ledger.jobs.progress(job)
    if progress is not None and have_other_weights(progress, serving):
        yield (
            f"this job began with weights {progress.weights}, but its workers now have others and "
            "will not continue it. To embed with the new weights, rename their file."
        )
