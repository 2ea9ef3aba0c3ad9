"""The ``producer`` command."""

import logging
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from common import __version__
from common.broker import connect, make_celery
from common.errors import UserError
from common.gpus import visible_gpus
from common.ledger import Ledger, Progress
from common.manifest import Include, Manifest, OutputForm, ResidueDtype
from common.messages import Status
from common.modeltable import ESM2_MAX_RESIDUES, ModelSource
from common.rungs import PrecisionChoice, first_rung
from common.settings import Settings
from common.store import Store, open_store
from producer.fetch import fetch as fetch_job
from producer.jobs import LostWork
from producer.local import LocalFleet, local_fleet, local_folder
from producer.reader import Long, Unknown
from producer.source import Source
from producer.staging import Request, find_job
from producer.submit import Hardware, warn_if_meaningless
from producer.submit import submit as submit_job
from producer.tables import print_job, print_jobs, print_workers, problems
from producer.watch import wait

app = App(
    name="producer",
    help="FASTA to embeddings: submit, watch and fetch jobs.",
    version=__version__,
)

#: Messages for people; standard output is for what a script reads: a job's name, a file's.
console = Console(stderr=True, soft_wrap=True)

EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130

DEFAULT_MODEL = "esm2_t33_650M_UR50D"

Several = Parameter(consume_multiple=True, negative="")
Flag = Parameter(negative="")
Broker = Annotated[
    str | None,
    Parameter(help="Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0."),
]
StoreUrl = Annotated[
    str | None, Parameter(help="Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.")
]


@app.command
def submit(
    input_: Annotated[str, Parameter(name="INPUT", allow_leading_hyphen=True)],
    /,
    *,
    model: str = DEFAULT_MODEL,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    local: Annotated[bool, Flag] = False,
    include: Annotated[tuple[Include, ...], Several] = ("mean",),
    layers: Annotated[tuple[int, ...], Several] = (-1,),
    precision: PrecisionChoice = "auto",
    residue_dtype: ResidueDtype = "float16",
    unknown: Unknown = "error",
    long: Long = "truncate",
    max_residues: int = ESM2_MAX_RESIDUES,
    batch_tokens: int | None = None,
    gpus: str = "all",
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Queue a FASTA file's sequences for embedding; the job's name goes to standard output.

    The same input with the same options goes on where an earlier submit stopped.

    Parameters
    ----------
    input_
        FASTA, plain or gz, bz2, xz, zst: a file, - for standard input, or s3://bucket/key.
    model
        Name such as esm2_t33_650M_UR50D, a folder with safetensors, a fair-esm .pt file, or
        random:NAME for weights that mean nothing.
    output
        Wait for the job and write its embeddings to this HDF5 file.
    local
        Need no fleet: start a Redis and a worker for each GPU (or one for the CPU) here, and
        take them down at the end. Without -o the file is named after the input.
    include
        What to keep: mean, per_residue, bos (several: --include mean bos).
    layers
        Representations to keep; -1 is the last (several: --layers -1 6).
    precision
        auto is FP16 on GPUs and FP32 on CPUs.
    residue_dtype
        Number type of per-residue vectors; pooled ones are always float32.
    unknown
        What to do with a record that has a letter outside the alphabet.
    long
        What to do with a record longer than --max-residues.
    max_residues
        ESM-2 was trained on up to 1022.
    batch_tokens
        Tokens in a batch; default: about a second's work, less for small inputs.
    gpus
        With --local: all, none for the CPU, or numbers such as 0,1.
    """
    source = Source(input_)
    request = Request(
        source=source,
        model=ModelSource.parse(model),
        rung=first_rung(precision),
        form=OutputForm(
            include=include, layers=layers, residue_dtype=residue_dtype, max_residues=max_residues
        ),
        unknown=unknown,
        long=long,
    )
    if local:
        output = output or Path(f"{source.stem}.h5")
        run_local(request, output, precision, gpus, store=store, tokens=batch_tokens)
        return
    settings = Settings.read(broker=broker, store=store)
    where = open_store(settings.required_store())
    source.check()
    ledger = Ledger(connect(settings.broker_url))
    celery = make_celery(settings.broker_url, [])
    warn_if_meaningless(console, request.model.text)
    queue = f"{request.model.queue}.{request.rung}"
    serving = [worker for worker in ledger.workers() if queue in worker.queues]
    manifest = submit_job(
        request,
        where,
        ledger,
        celery,
        hardware=Hardware.of_fleet(serving),
        tokens=batch_tokens,
        console=console,
    )
    if not serving:
        say(f"No worker serves {queue} yet: worker start --model {request.model.text}")
    if output is None:
        say(f"Queued. To wait: producer watch {manifest.job}")
        say(f"Then: producer fetch {manifest.job} -o FILE.h5")
        print_line(manifest.job)
        return
    try:
        finished = wait(ledger, manifest.job, console, lost_work=LostWork(ledger, celery, manifest))
    except KeyboardInterrupt:
        stop_watching(manifest.job)
    conclude(where, ledger, manifest, finished, output)


def run_local(
    request: Request,
    output: Path,
    precision: PrecisionChoice,
    gpus: str,
    *,
    store: str | None,
    tokens: int | None,
) -> None:
    """Submit, wait and fetch with a fleet that lives as long as that takes."""
    # A service manager's or scheduler's stop is as good as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    request.source.check()
    folder = local_folder(output)
    where = open_store(store or str((folder / "store").absolute()))
    warn_if_meaningless(console, request.model.text)
    used_gpus = [] if gpus == "none" else visible_gpus() if gpus == "all" else gpus.split(",")
    manifest: Manifest | None = None
    try:
        with local_fleet(
            folder, where.url, model=request.model.text, precision=precision, gpus=gpus
        ) as fleet:
            ledger = Ledger(connect(fleet.broker_url))
            celery = make_celery(fleet.broker_url, [])
            hardware = Hardware(on_gpu=bool(used_gpus), workers=max(1, len(used_gpus)))
            manifest = submit_job(
                request, where, ledger, celery, hardware=hardware, tokens=tokens, console=console
            )
            finished = wait_local(ledger, celery, manifest, fleet)
            conclude(where, ledger, manifest, finished, output)
    except KeyboardInterrupt:
        kept = "" if manifest is None else f" What is done is kept in {store or folder}."
        say(f"Stopped.{kept} Run the same command again to go on.")
        sys.exit(EXIT_INTERRUPTED)
    except UserError:
        if manifest is None:
            tidy(folder)
        raise
    tidy(folder)


def wait_local(ledger: Ledger, celery: object, manifest: Manifest, fleet: LocalFleet) -> Progress:
    lost_work = LostWork(ledger, celery, manifest)
    return wait(ledger, manifest.job, console, lost_work=lost_work, check=fleet.check)


def tidy(folder: Path) -> None:
    """Remove what a local job left, and the folder if nothing else is in it."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    (folder / "worker.log").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def conclude(
    store: Store, ledger: Ledger, manifest: Manifest, progress: Progress, output: Path
) -> None:
    """Fetch a finished job, or say what failed and exit with code 1."""
    results = ledger.results(manifest.job)
    for line in problems(results):
        say(line)
    failed = sum(result.status is Status.FAILED for result in results)
    if failed:
        say(f"{failed} of {progress.batches} batches failed. Submit the same input again to retry.")
        sys.exit(EXIT_FAILED)
    write_output(store, manifest, output)


def write_output(store: Store, manifest: Manifest, output: Path) -> None:
    with console.status(f"Writing {output} …"):
        fetched = fetch_job(store, manifest, output)
    say(f"Wrote {fetched.rows:,} embeddings to {output}.")
    if fetched.rows_without_numbers:
        say(
            f"{fetched.rows_without_numbers:,} of them have no numbers (NaN, precision none): "
            "their forward pass was not finite."
        )
    if fetched.warning:
        say(f"Mind: {fetched.warning}.")
    print_line(str(output))


@app.command
def status(job: str | None = None, /, *, store: StoreUrl = None, broker: Broker = None) -> None:
    """Show a job in full, or without JOB the fleet: workers, queues and jobs."""
    ledger = Ledger(connect(Settings.read(broker=broker, store=store).broker_url))
    out = Console()
    if job is None:
        print_workers(out, ledger.workers())
        print_jobs(out, filter(None, map(ledger.progress, ledger.jobs())))
        return
    progress = known_progress(ledger, job)
    print_job(out, progress, ledger.queued(progress.queue), ledger.results(job))


@app.command
def jobs(*, broker: Broker = None) -> None:
    """List the jobs that Redis knows, newest first."""
    ledger = Ledger(connect(Settings.read(broker=broker).broker_url))
    print_jobs(Console(), filter(None, map(ledger.progress, ledger.jobs())))


@app.command
def watch(job: str, /, *, store: StoreUrl = None, broker: Broker = None) -> None:
    """Wait until a job is finished, and see that none of its batches is lost meanwhile."""
    settings = Settings.read(broker=broker, store=store)
    ledger = Ledger(connect(settings.broker_url))
    known_progress(ledger, job)
    manifest = known_manifest(open_store(settings.required_store()), job)
    celery = make_celery(settings.broker_url, [])
    try:
        finished = wait(ledger, job, console, lost_work=LostWork(ledger, celery, manifest))
    except KeyboardInterrupt:
        stop_watching(job)
    for line in problems(ledger.results(job)):
        say(line)
    if finished.count("batches_failed"):
        sys.exit(EXIT_FAILED)


@app.command
def fetch(
    job: str,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    store: StoreUrl = None,
) -> None:
    """Write a finished job's embeddings to one HDF5 file. Needs the store alone, no Redis.

    Parameters
    ----------
    output
        HDF5 file; replaced if it is there.
    """
    where = open_store(Settings.read(store=store).required_store())
    write_output(where, known_manifest(where, job), output)


def known_progress(ledger: Ledger, job: str) -> Progress:
    progress = ledger.progress(job)
    if progress is None:
        raise UserError(f"Redis knows no job {job!r}; producer jobs lists those it knows.")
    return progress


def known_manifest(store: Store, job: str) -> Manifest:
    manifest = find_job(store, job)
    if manifest is None:
        raise UserError(f"{store.url} has no job {job!r}. Is this the store it was submitted to?")
    return manifest


def stop_watching(job: str) -> NoReturn:
    say(f"Stopped watching; the job goes on. producer watch {job}")
    sys.exit(EXIT_INTERRUPTED)


def say(text: str) -> None:
    console.print(text, highlight=False, markup=False)


def print_line(text: str) -> None:
    """One line on standard output, for scripts."""
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Run a command; what the user can mend is one message and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app(exit_on_error=False)
    except CycloptsError:
        sys.exit(EXIT_USER_ERROR)
    except UserError as error:
        sys.stderr.write(f"producer: {error}\n")
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
