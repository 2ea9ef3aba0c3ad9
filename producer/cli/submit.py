"""The ``producer`` command."""

import logging
import sys
import uuid
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common import __version__
from common.errors import UserError
from common.job.output_form import Include, OutputForm, ResidueDtype
from common.ledger.ledger import Ledger
from common.ledger.progress import OnInstability
from common.ledger.workers import WorkerInfo
from common.model_specs import DNABERT_S, ESM2, Family, ModelSource
from common.rungs import PrecisionChoice, Rung, first_rung
from common.settings import Settings
from common.store import open_store
from common.wire.messages import Priority
from common.wire.queues import queue_name
from common.wire.redis_client import connect
from producer.cli import manage
from producer.cli.manage import Broker, StoreUrl, watch_job
from producer.input.reader import Long, Unknown
from producer.input.source import Source
from producer.local.run import run_local
from producer.scheduling.publisher import publisher_of
from producer.submission.request import Request
from producer.submission.submit import Hardware
from producer.submission.submit import submit as submit_job
from producer.terminal.console import print_line, say
from producer.terminal.report import EXIT_INTERRUPTED, check_output, write_output
from producer.terminal.watch import have_other_weights

app = App(
    name="producer",
    help="FASTA to embeddings: submit, watch and fetch jobs.",
    version=__version__,
)

EXIT_USER_ERROR = 2

DEFAULT_MODEL = "esm2_t33_650M_UR50D"

Several = Parameter(
    consume_multiple=True, negative="", show_default=lambda values: " ".join(map(str, values))
)


Flag = Parameter(negative="")


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
    residue_dtype: ResidueDtype | None = None,
    unknown: Unknown = "error",
    long: Long | None = None,
    max_residues: PositiveInt | None = None,
    overlap: NonNegativeInt | None = None,
    on_instability: OnInstability = "retry",
    batch_tokens: PositiveInt | None = None,
    priority: Priority = Priority.NORMAL,
    new: Annotated[bool, Flag] = False,
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
        Number type of per-residue vectors; default: float16 for the last layer, which is normed,
        float32 where another one is asked for. Pooled vectors are always float32.
    unknown
        What to do with a record that has a letter outside the alphabet.
    long
        What to do with a record longer than --max-residues: truncate it (default for proteins),
        embed it in windows that overlap and pool them by their tokens (default for DNA), or error.
    max_residues
        Residues or bases that are embedded in one piece; default: 1022 for ESM-2, which was
        trained on that many, 10000 for DNABERT-S.
    overlap
        Letters that neighbouring windows share at least; default: a tenth of a window.
    on_instability
        What to do with a sequence whose embedding is not finite: run it again in higher
        precision (retry), or stop the job (fail).
    batch_tokens
        Tokens in a batch; default: about a second's work, less for small inputs.
    priority
        Workers take batches of higher priority first.
    new
        Begin anew, whatever was submitted before.
    gpus
        With --local alone: all, none for the CPU, or numbers such as 0,1.
    """
    source = Source(input_)
    source.check()
    model_source = ModelSource.parse(model)
    family = family_of(model_source)
    if family is DNABERT_S and "per_residue" in include:
        raise UserError(
            "--include per_residue: tokens of DNABERT-S are several bases long, so that there is "
            "no vector for each base. Give --include mean or bos."
        )
    long = long or default_long(family)
    max_residues = max_residues or family.max_residues
    request = Request(
        source=source,
        model=model_source,
        alphabet=family.alphabet,
        rung=first_rung(precision),
        on_instability=on_instability,
        form=OutputForm(
            include=include,
            layers=layers,
            residue_dtype=residue_dtype or ("float16" if layers == (-1,) else "float32"),
            max_residues=max_residues,
            overlap=window_overlap(long, max_residues, overlap),
        ),
        unknown=unknown,
        long=long,
        priority=priority,
        nonce=uuid.uuid4().hex if new else None,
    )
    if local:
        output = output or Path(f"{source.stem}.h5")
        run_local(request, output, precision, gpus, store_url=store, tokens=batch_tokens)
    else:
        settings = Settings.read(broker=broker, store=store)
        submit_to_fleet(request, output, settings, tokens=batch_tokens)


def family_of(model: ModelSource) -> Family:
    """The model's family; ESM-2 for a folder that only its workers can see."""
    spec = model.spec()
    return ESM2 if spec is None else spec.family


def default_long(family: Family) -> Long:
    return "window" if family.windows else "truncate"


def window_overlap(long: Long, max_residues: int, overlap: int | None) -> int | None:
    """The windows' overlap; None if there are to be none.

    Raises:
        UserError: an overlap without windows.
    """
    if long != "window":
        if overlap is not None:
            raise UserError("--overlap is of windows: give --long window too.")
        return None
    return max_residues // 10 if overlap is None else overlap


def submit_to_fleet(
    request: Request, output: Path | None, settings: Settings, *, tokens: int | None
) -> None:
    """Queue a job for workers elsewhere; with ``output`` wait for it and fetch it."""
    if output is not None:
        check_output(output)
    store = open_store(settings.required_store())
    ledger = Ledger(connect(settings.broker_url))
    feeder = publisher_of(settings, ledger)
    queue = queue_name(request.model, request.rung, request.rung, request.priority)
    workers = ledger.workers.all()
    serving = [worker for worker in workers if queue in worker.queues]
    hardware = Hardware.of_fleet(serving)
    manifest = submit_job(request, store, ledger, feeder, hardware=hardware, tokens=tokens)
    if manifest.priority is not request.priority:
        say(f"The job keeps the priority that it was submitted with first: {manifest.priority}.")
    if not serving:
        others = {worker.precision for worker in workers if worker.model == request.model.text}
        say(f"No worker serves {queue} yet: {worker_command(request)}")
        if others:
            say(f"Workers of this model are up in {', '.join(sorted(others))}: see --precision.")
    warn_of_other_weights(ledger, manifest.job, serving)
    if output is None:
        say(f"Queued. To wait: producer watch {manifest.job}")
        say(f"Then: producer fetch {manifest.job} -o FILE.h5")
        print_line(manifest.job)
        return
    watch_job(store, ledger, feeder, manifest)
    write_output(store, manifest, output)


def warn_of_other_weights(ledger: Ledger, job: str, serving: list[WorkerInfo]) -> None:
    progress = ledger.jobs.progress(job)
    if progress is not None and have_other_weights(progress, serving):
        say(
            f"Mind: this job was begun with weights {progress.weights}, and its workers have "
            "others now, which compute nothing of it. To embed with those, rename their file."
        )


def worker_command(request: Request) -> str:
    """What to type on a machine with a GPU so that this request is served."""
    precision = "" if request.rung is Rung.FP16 else f" --precision {request.rung}"
    return f"worker start --model {request.model.text}{precision}"


for command in manage.COMMANDS:
    app.command(command)


def problem(error: ErrorDetails) -> str:
    """What pydantic found wrong with an option, or with several together."""
    message = error["msg"].removeprefix("Value error, ")
    return ": ".join([*map(str, error["loc"][:1]), message])


def what_redis_lacks(error: RedisError) -> str:
    """Why Redis did not do what it was asked to, and what to do."""
    if "OOM" in str(error):
        return (
            "Redis has no memory left (its maxmemory). Nothing is lost: give it more, or wait "
            "until workers have taken messages; then the same command goes on where this one "
            "stopped. "
            "VIRNUCPRO_HIGH_WATER is how many messages may wait (1 KB each)."
        )
    if not isinstance(error, RedisConnectionError | RedisTimeoutError):
        return f"Redis refused what it was asked to do: {error}"
    return (
        f"Redis stopped answering ({error}). Once it is back, the same command goes on where this "
        "one stopped."
    )


def main() -> None:
    """Run a command; what the user can mend is one message and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app(exit_on_error=False)
    except CycloptsError:
        sys.exit(EXIT_USER_ERROR)
    except ValidationError as error:
        sys.stderr.write(f"producer: {'; '.join(map(problem, error.errors()))}\n")
        sys.exit(EXIT_USER_ERROR)
    except UserError as error:
        sys.stderr.write(f"producer: {error}\n")
        sys.exit(EXIT_USER_ERROR)
    except RedisError as error:
        sys.stderr.write(f"producer: {what_redis_lacks(error)}\n")
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
