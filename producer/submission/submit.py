"""``producer submit``: from a request to a job in the queue."""

import math
import time
import uuid
from dataclasses import dataclass

from common.alphabet import ALPHABETS
from common.job.manifest import Manifest, find_job
from common.ledger.ledger import Ledger
from common.ledger.locks import STAGING_SECONDS
from common.ledger.workers import WorkerInfo
from common.model_specs import MODELS, ModelSpec, resolve_layers
from common.store import Store, check_writable
from producer.input.batches import Budget, batch_tokens
from producer.scheduling.opening import job_queue, open_job
from producer.scheduling.publisher import Publisher
from producer.submission.request import Request, job_name
from producer.submission.staging import StagedElsewhereError, stage
from producer.terminal.console import console, counted, say

#: What is assumed of a model that only the workers can open: batches are small enough for any.
UNKNOWN_MODEL = MODELS["esm2_t48_15B_UR50D"]

MEANINGLESS = (
    "RANDOM WEIGHTS: {model} has no training in it. These embeddings mean nothing; they are for "
    "trying the fleet."
)


@dataclass(frozen=True)
class Hardware:
    """What will compute, as far as it is known: it decides how large a batch is."""

    on_gpu: bool
    workers: int

    @classmethod
    def of_fleet(cls, workers: list[WorkerInfo]) -> "Hardware":
        """Of the workers that serve a queue; a fleet that is not up yet is taken to have GPUs."""
        if not workers:
            return cls(on_gpu=True, workers=1)
        return cls(on_gpu=any(worker.device != "CPU" for worker in workers), workers=len(workers))


def known_shape(request: Request) -> ModelSpec:
    """The model's shape, or the largest one's if only a worker can tell.

    Raises:
        UserError: layers that the model does not have.
    """
    spec = request.model.spec()
    if spec is not None:
        resolve_layers(request.form.layers, spec.layers)
    return spec or UNKNOWN_MODEL


def submit(
    request: Request,
    store: Store,
    ledger: Ledger,
    feeder: Publisher,
    *,
    hardware: Hardware,
    tokens: int | None,
) -> Manifest:
    """Stage an input and queue its batches, or go on with the job that did.

    Nothing is queued before every record was checked and everything is in the store.

    Args:
        feeder: publishes the job's first batches.
        hardware: what will compute.
        tokens: of a batch; None: about a second's work.

    Raises:
        UserError: bad input, bad options, or a store that cannot be written.
    """
    spec = known_shape(request)
    check_writable(store)
    if request.model.is_random:
        console.print(MEANINGLESS.format(model=request.model.text), style="bold red")
    fingerprint = request.fingerprint()
    manifest = find_job(store, job_name(request.source, fingerprint))
    if manifest is None:
        budget = budget_for(request, spec, hardware, tokens)
        manifest = stage_alone(request, store, ledger, fingerprint, budget, spec)
        open_job(store, ledger, feeder, manifest, request.on_instability)
    else:
        left = open_job(store, ledger, feeder, manifest, request.on_instability)
        say(
            f"This input was submitted before: going on with job {manifest.job}, "
            f"{left:,} of {manifest.batches:,} batches to do."
        )
        warn_of_retries(ledger, manifest.job, request)
    report_input(manifest)
    return manifest


def warn_of_retries(ledger: Ledger, job: str, request: Request) -> None:
    progress = ledger.jobs.progress(job)
    if request.on_instability == "fail" and progress is not None and progress.finished:
        unstable = progress.unstable_at(request.rung)
        if unstable:
            say(
                f"Mind: {counted(unstable, 'sequence')} of this finished job were not finite at "
                "their first rung; --on-instability fail comes too late for them."
            )


def budget_for(request: Request, spec: ModelSpec, hardware: Hardware, tokens: int | None) -> Budget:
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
) -> Manifest:
    """Stage the input, with a line that says how far it is, unless somebody else does already.

    Returns:
        The manifest; of another producer, if one has just finished staging this very job.

    Raises:
        UserError: somebody else stages this very job.
    """
    job, owner = job_name(request.source, fingerprint), uuid.uuid4().hex
    batches = records = 0
    held = -math.inf

    def hold() -> None:
        nonlocal held
        held = time.monotonic()
        if not ledger.locks.hold_staging(job, owner):
            raise StagedElsewhereError(
                f"Job {job} is being submitted by another producer at this moment. Wait for it: "
                f"producer watch {job}"
            )

    hold()
    with console.status("Reading the input …") as status:

        def show(more: int) -> None:
            nonlocal batches, records
            batches, records = batches + 1, records + more
            status.update(f"Reading the input: {records:,} records in {batches:,} batches …")
            if time.monotonic() - held >= STAGING_SECONDS / 12:
                hold()

        try:
            # It may have come since the caller looked: to stage again would delete it.
            there = find_job(store, job)
            if there is not None:
                return there
            return stage(
                store,
                request,
                fingerprint,
                budget=budget,
                spec=spec,
                on_batch=show,
                still_ours=hold,
            )
        finally:
            ledger.locks.release_staging(job, owner)


def report_input(manifest: Manifest) -> None:
    """Say what was read, and everything about it that the user may not expect."""
    report, name, letters = manifest.report, manifest.input, ALPHABETS[manifest.alphabet]
    lines = [
        f"{name}: {counted(report.records, 'record')}, {report.residues:,} {letters.plural} to "
        f"embed, in {manifest.batches:,} batches for queue {job_queue(manifest)}."
    ]
    warnings = {
        what_of_long(manifest): report.long,
        "with an id that an earlier record has too: all are kept, rows tell them apart": (
            report.duplicate_ids
        ),
        f"with unknown letters, embedded as {letters.unknown}": report.replaced,
        "with unknown letters, left out; rows keep their position in the input": report.skipped,
    }
    lines += [
        f"Note: {counted(count, 'record')} {what}." for what, count in warnings.items() if count
    ]
    if report.looks_like_dna:
        lines.append(
            "Mind: the first records have no letters but A, C, G, T, U and N, and this model is "
            "for proteins. For DNA give --model dnabert_s."
        )
    for line in lines:
        say(line)


def what_of_long(manifest: Manifest) -> str:
    form, letters = manifest.form, ALPHABETS[manifest.alphabet].plural
    longer = f"longer than {form.max_residues:,} {letters}"
    if form.overlap is None:
        return f"{longer}: only that many were kept of each (--long error refuses them)"
    return (
        f"{longer}: embedded in windows of {form.max_residues:,} that overlap by at least "
        f"{form.overlap:,}, pooled by their tokens"
    )
