"""``producer submit``: from a request to a job in the queue."""

from dataclasses import dataclass

from celery import Celery
from rich.console import Console

from common.ledger import Ledger, WorkerInfo
from common.manifest import Manifest
from common.modeltable import MODELS, ModelSpec, resolve_layers
from common.store import Store, check_writable
from producer.batches import Budget, batch_tokens
from producer.jobs import job_queue, open_job
from producer.staging import Request, find_job, job_name, stage

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
    app: Celery,
    *,
    hardware: Hardware,
    tokens: int | None,
    console: Console,
) -> Manifest:
    """Stage an input and queue its batches, or go on with the job that did.

    Nothing is queued before every record was checked and everything is in the store.

    Args:
        hardware: what will compute.
        tokens: of a batch; None: about a second's work.

    Raises:
        UserError: bad input, bad options, or a store that cannot be written.
    """
    request.source.check()
    spec = known_shape(request)
    check_writable(store)
    fingerprint = request.fingerprint()
    manifest = find_job(store, job_name(request.source, fingerprint))
    if manifest is None:
        budget = Budget(
            tokens=tokens
            or batch_tokens(
                spec,
                on_gpu=hardware.on_gpu,
                workers=hardware.workers,
                input_bytes=request.source.estimated_bytes(),
            )
        )
        with console.status("Reading the input …") as status:
            done = [0, 0]

            def show(records: int, _tokens: int) -> None:
                done[0] += 1
                done[1] += records
                status.update(f"Reading the input: {done[1]:,} records in {done[0]:,} batches …")

            manifest = stage(
                store, request, fingerprint, budget=budget, dim=spec.dim, on_batch=show
            )
        published = open_job(store, ledger, app, manifest)
    else:
        published = open_job(store, ledger, app, manifest)
        console.print(
            f"This input was submitted before: going on with job {manifest.job}, "
            f"{published:,} of {manifest.batches:,} batches to do.",
            highlight=False,
        )
    report_input(console, manifest)
    return manifest


def report_input(console: Console, manifest: Manifest) -> None:
    """Say what was read, and everything about it that the user may not expect."""
    report, name = manifest.report, manifest.input
    lines = [
        f"{name}: {report.records:,} records, {report.residues:,} residues to embed, in "
        f"{manifest.batches:,} batches for queue {job_queue(manifest)}."
    ]
    warnings = {
        f"longer than {manifest.form.max_residues:,} residues: only that many were kept of each "
        "(--long error refuses them)": report.truncated,
        "with an id that an earlier record has too: all are kept, rows tell them apart": (
            report.duplicate_ids
        ),
        "with unknown letters, embedded as X": report.replaced,
        "with unknown letters, left out; rows keep their position in the input": report.skipped,
    }
    lines += [f"Note: {count:,} records {what}." for what, count in warnings.items() if count]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def warn_if_meaningless(console: Console, model: str) -> None:
    if model.startswith("random:"):
        console.print(MEANINGLESS.format(model=model), style="bold red", highlight=False)
