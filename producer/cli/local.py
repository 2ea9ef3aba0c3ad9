"""Running one job with a fleet of its own on this machine, as ``--local`` asks for."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.advice import CommandLine, advise_commands, how_to
from common.errors import ProcessEndedError, UserError
from common.job.manifest import read_manifest
from common.job.shards import shards_of
from common.model_source import ModelSource
from common.rungs import PrecisionChoice
from common.store import Store
from common.text import counted_batches
from producer.cli.options import EXIT_INTERRUPTED
from producer.cli.output import write_output
from producer.cli.watch import wait_for
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.output import Output
from producer.local.run import has_jobs, local_run, local_store
from producer.terminal.console import say


def run_local(
    start: Callable[[Fleet], Job],
    output: Output,
    *,
    model: ModelSource,
    precision: PrecisionChoice,
    gpus: str,
    store: str | None,
) -> None:
    """Run a job to its output file on this machine; exit with code 130 on Ctrl-C and SIGTERM.

    Args:
        start: queues the job on the fleet of this machine.
    """
    job, is_written = None, False

    def stopped(kept: Store) -> None:
        if not is_written:
            say_stopped(job, kept)

    with fleet_of_this_machine(
        output, model=model, precision=precision, gpus=gpus, store=store, stopped=stopped
    ) as fleet:
        job = start(fleet)
        with job.following(output) as file:
            wait_for(job, file=file)
            write_output(job, output, file, store_is_kept=store is not None)
        is_written = True


@contextmanager
def fleet_of_this_machine(
    output: Output,
    *,
    model: ModelSource,
    precision: PrecisionChoice,
    gpus: str,
    store: str | None,
    stopped: Callable[[Store], None],
) -> Iterator[Fleet]:
    """Run a fleet beside an output; exit with code 130 on Ctrl-C and SIGTERM.

    Args:
        output: beside it is the working folder.
        model: whose worker is started first.
        store: where objects stay; None: in the working folder, until the end.
        stopped: prints what is kept in the store, if the block was interrupted.
    """
    # A cluster's scheduler stops its jobs with SIGTERM, which is handled like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output.check()
    advise_commands(CommandLine(local=local_options(output, gpus, store)))
    try:
        with local_run(
            output, model=model, precision=precision, gpus=gpus, store_url=store
        ) as fleet:
            assert fleet.machine is not None
            say(f"Loading the model; the worker's log is {fleet.machine.log}.")
            yield fleet
    except ProcessEndedError as error:
        if has_jobs(local_store(output.working, store)):
            raise
        raise UserError(
            f"{error.__cause__}\nMend that, then run the same command again."
        ) from error
    except KeyboardInterrupt:
        stopped(local_store(output.working, store))
        sys.exit(EXIT_INTERRUPTED)


def local_options(output: Output, gpus: str, store: str | None) -> tuple[str, ...]:
    """Return the options with which a job of this machine is resumed."""
    return (
        "--local",
        *output.options(),
        *([] if store is None else [f"--store={store}"]),
        *([] if gpus == "all" else [f"--gpus={gpus}"]),
    )


def say_stopped(job: Job | None, kept: Store) -> None:
    """Print what is kept of a job that was interrupted; None: its input was not read to the end."""
    if job is None:
        say("Stopped before the input was read to its end: run the same command again.")
        return
    done = len(shards_of(kept, read_manifest(kept, job.name)))
    say(f"Stopped with {counted_batches(done)} finished. To resume: {how_to('resume', job.name)}")
