"""The ``worker`` command: its subcommands and its error messages."""

import json
import logging
import signal
import sys
from importlib.util import find_spec
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from common import __version__, logs
from common.errors import UserError
from common.installing import how_to_install
from common.local.gpus import visible_gpus
from common.memory import memory_errors_explained
from common.model_source import with_revision
from common.rungs import PrecisionChoice
from common.settings import Settings
from common.streams import flushed_output, log_to_stderr, open_closed_streams
from common.text import one_line, printable
from workers.cli.doctor import doctor
from workers.cli.download import download
from workers.cli.options import UserPath, chosen_gpus, require_torch
from workers.cli.start import start
from workers.validation import DeviceChoice, HalfChoice, Request
from workers.validation.sets import SEQUENCES_PER_SET

log = logging.getLogger("workers")

EXIT_PASSED, EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


app = App(name="worker", help="Serve a model to the fleet.", version=__version__)
app.command(start)
app.command(download)
app.command(doctor)


@app.command
def validate(
    *,
    model: str,
    revision: str | None = None,
    weights: UserPath | None = None,
    precision: HalfChoice = "auto",
    device: DeviceChoice = "auto",
    sequences_per_set: Annotated[int, Parameter(validator=Number(gte=2))] = SEQUENCES_PER_SET,
    picture: UserPath | None = None,
    published: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    store: str | None = None,
) -> None:
    """Check on this machine that a model may be served in half precision.

    Random sequences of all lengths are embedded in half precision and in FP32, packed and padded.
    The result is recorded: on a device of the same name, a worker refuses to serve weights in a
    precision that failed. With --published, three proteins are compared with the numbers of the
    authors' own code instead, and nothing is recorded.
    Exit code 0: passed; 1: failed; 2: the validation could not be done.

    Parameters
    ----------
    model
        As for worker start.
    revision
        As for worker start.
    weights
        Folder or fair-esm .pt file with the weights of the model that --model names.
    precision
        auto is FP16 on a GPU and BF16 on a CPU.
    device
        auto is the first GPU if there is one.
    sequences_per_set
        Number of sequences in each of the sets short, medium, long, very_long and mixed.
    picture
        PNG file to write: cosine similarity against length.
    published
        Compare with numbers that the authors' code gave with the published weights.
    as_json
        Print one JSON document instead of tables.
    store
        Folder or s3://bucket/prefix for another copy of the record; default: VIRNUCPRO_STORE.
    """
    require_torch()
    if published:
        refuse_beside_published(picture, sequences_per_set, store)
    if picture is not None:
        require_matplotlib()

    request = Request(
        model=with_revision(model, revision),
        weights=weights,
        precision=precision,
        device=device,
        sequences_per_set=sequences_per_set,
        picture=picture,
        store=Settings.read(store=store).store,
    )
    if published:
        print_installation(request, as_json=as_json)
    from workers.validation.report import print_report
    from workers.validation.run import run as validated

    validation = validated(request)
    if as_json:
        sys.stdout.write(f"{validation.json_text}\n")
    else:
        print_report(validation)
    if picture is not None:
        from workers.validation.picture import save_picture  # Matplotlib takes a while to import

        save_picture(validation, picture)
        log.info("The picture is %s.", picture)
    sys.exit(EXIT_PASSED if validation.passed else EXIT_FAILED)


def refuse_beside_published(
    picture: UserPath | None, sequences_per_set: int, store: str | None
) -> None:
    """Raise UserError if an option was given that --published has no use for."""
    given = {
        "--picture": picture is not None,
        "--sequences-per-set": sequences_per_set != SEQUENCES_PER_SET,
        "--store": store is not None,
    }
    useless = [option for option, is_given in given.items() if is_given]
    if useless:
        raise UserError(
            f"{useless[0]} is for random sequences and their record: --published compares three "
            "proteins and records nothing. Omit one of the two."
        )


def print_installation(request: Request, *, as_json: bool) -> NoReturn:
    """Compare with the published numbers, print the result, and exit."""
    from workers.validation.published.figures import read_published
    from workers.validation.published.report import print_report
    from workers.validation.published.run import run as compared

    published = read_published()
    found = compared(request, published)
    if as_json:
        sys.stdout.write(f"{found.json_text}\n")
    else:
        print_report(found, published.source)
    sys.exit(EXIT_PASSED if found.passed else EXIT_FAILED)


@app.command
def bench(
    *,
    model: str,
    revision: str | None = None,
    gpus: str | None = None,
    precision: PrecisionChoice = "auto",
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 20.0,
    per_residue: Annotated[bool, Parameter(negative="")] = False,
    store: UserPath | None = None,
    trace: UserPath | None = None,
    gpu_memory: float | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Measure the speed of this machine, with nothing to set up. On a GPU it takes about a minute.

    Measures first the model alone, then a worker between a queue and a store of its own.

    Parameters
    ----------
    model
        Name such as esm2_t33_650M_UR50D, run with random weights; or as for worker start.
    revision
        As for worker start: then with the weights of this revision.
    gpus
        Numbers such as 0,1, all, or none for the CPU; default: the first GPU, if there is one.
    precision
        auto is FP16 on a GPU and FP32 on a CPU.
    seconds
        Approximate time for which the worker is kept busy.
    per_residue
        Also write per-residue vectors.
    store
        Folder for shards, to measure another disk than that of temporary files.
    trace
        JSON file to write: a trace of the worker's threads and its GPU.
    gpu_memory
        Largest number of gigabytes to use of each GPU.
    as_json
        Print one JSON document instead of a table.
    """
    require_torch()
    from workers.bench.report import as_document, print_report
    from workers.bench.run import Request
    from workers.bench.run import run as measured_here

    # A cluster's scheduler stops its jobs with SIGTERM, handled like Ctrl-C: all files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = Settings.read(gpu_memory=gpu_memory)
    request = Request(
        model=with_revision(model, revision),
        precision=precision,
        gpus=visible_gpus()[:1] if gpus is None else chosen_gpus(gpus),
        seconds=seconds,
        per_residue=per_residue,
        store=store,
        trace=trace,
        gpu_memory=settings.gpu_memory,
    )
    measured = measured_here(request)
    if as_json:
        sys.stdout.write(json.dumps(as_document(measured, request), indent=1) + "\n")
    else:
        print_report(measured, request)


def require_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise UserError(f"--picture needs matplotlib: {how_to_install('local')}")


def run() -> None:
    """Run a command; an error that the user can correct is one message and exit code 2."""
    open_closed_streams()
    log_to_stderr(logging.INFO, "%(asctime)s %(levelname)s %(message)s")
    try:
        with flushed_output(), memory_errors_explained():
            app(exit_on_error=False, print_error=not prints_json())
    except CycloptsError as error:
        if prints_json():
            fail(str(error))
        sys.exit(EXIT_USER_ERROR)
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def prints_json() -> bool:
    """Return whether the command is to print JSON, and an error as one line."""
    return "--json" in sys.argv


def fail(text: str) -> None:
    if logs.are_json():
        log.error("%s", text)
    else:
        shown = one_line(text) if prints_json() else printable(text)
        sys.stderr.write(f"worker: {shown}\n")
    sys.exit(EXIT_USER_ERROR)
