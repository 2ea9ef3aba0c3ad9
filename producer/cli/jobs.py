"""Commands for submitted jobs."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

from redis.exceptions import ResponseError

from common.advice import how_to
from common.errors import UserError
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.ledger.unreadable import UnreadableJobError, is_odd_value
from common.text import counted, counted_batches
from common.wire.dead_letters import DeadLetters
from common.wire.messages import BatchResult
from common.wire.queues import Queues
from producer.cli.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Broker,
    Flag,
    StoreUrl,
    named_fleet,
)
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.output_file import OutputFile
from producer.terminal.console import print_line, say
from producer.terminal.report import report_failures, report_quarantined
from producer.terminal.tables import (
    output_console,
    print_dead_letters,
    print_events,
    print_job,
    print_jobs,
    print_reason,
    print_unreadable,
    print_workers,
)
from producer.terminal.watch import PATIENCE_SECONDS, display, say_event

#: The number of dead letters and of events that ``producer status`` shows.
DEAD_LETTERS_SHOWN = EVENTS_SHOWN = 5

#: Seconds after which ``producer watch``, which begins late, says why its job does not go on.
WATCH_PATIENCE_SECONDS = 3.0

T = TypeVar("T")


def status(job: str | None = None, /, *, broker: Broker = None) -> None:
    """Show a job in full, or without JOB the fleet: workers, queues and jobs."""
    fleet = named_fleet(broker=broker)
    if job is None:
        show_fleet(fleet)
    else:
        show_job(fleet.job(job))


def show_fleet(fleet: Fleet) -> None:
    out, letters = output_console(), DeadLetters(fleet.ledger.redis)
    workers = fleet.ledger.workers.entries()
    print_workers(out, filter(None, workers.values()))
    others = sorted(name for name, worker in workers.items() if worker is None)
    print_unreadable(
        out, (f"Worker {name} is of another version of the program." for name in others)
    )
    list_jobs(fleet)
    unreadable: list[object] = []
    if count := shown(letters.count, 0, unreadable):
        print_dead_letters(out, letters.latest(DEAD_LETTERS_SHOWN), count)
    print_unreadable(out, unreadable)


def show_job(job: Job) -> None:
    out, ledger, progress = output_console(), job.fleet.ledger, job.status()
    queues = Queues(ledger.redis)
    unreadable: list[object] = []
    queued = {
        rung: shown(partial(queues.length, queue), 0, unreadable)
        for rung, queue in progress.queues.items()
    }
    none: list[BatchResult] = []
    results = shown(lambda: ledger.results.all(job.name), none, unreadable)
    print_job(out, progress, queued, results)
    if reason := shown(lambda: job.why_waiting(progress), "", unreadable):
        print_reason(out, job.name, reason)
    if count := shown(lambda: ledger.events.count(job.name), 0, unreadable):
        print_events(out, ledger.events.latest(job.name, EVENTS_SHOWN), count)
    print_unreadable(out, dict.fromkeys(map(str, unreadable)))


def shown(read: Callable[[], T], otherwise: T, unreadable: list[object]) -> T:
    """Return what is read of a job; ``otherwise`` if this version cannot, with the error noted."""
    try:
        return read()
    except UserError as error:
        unreadable.append(error)
    except ResponseError as error:
        if not is_odd_value(error):
            raise
        unreadable.append(error)
    return otherwise


def jobs(*, broker: Broker = None) -> None:
    """List the jobs that Redis knows, newest first."""
    list_jobs(named_fleet(broker=broker))


def list_jobs(fleet: Fleet) -> None:
    out, unreadable = output_console(), []
    known: list[Progress] = []
    for name in fleet.ledger.jobs.names():
        try:
            progress = fleet.ledger.jobs.progress(name)
        except UnreadableJobError as error:
            unreadable.append(error)
        else:
            known += [progress] if progress is not None else []  # it may just have been deleted
    print_jobs(out, known)
    print_unreadable(out, unreadable)


def dead_letters(*, clear: Annotated[bool, Flag] = False, broker: Broker = None) -> None:
    """List the messages that no worker could process, one line of JSON each.

    Newest first, with the time in seconds since 1970. The last 1,000 are kept.

    Parameters
    ----------
    clear
        Delete them instead.
    """
    letters = DeadLetters(named_fleet(broker=broker).ledger.redis)
    if clear:
        letters.clear()
        return
    for letter in letters.latest():
        print_line(letter.model_dump_json())


def cancel(job: str, /, *, broker: Broker = None) -> None:
    """Cancel a job: its waiting batches are not started, and its running ones are dropped.

    Finished batches stay in the store; producer resume goes on with the job.
    """
    named_fleet(broker=broker).job(job).cancel()
    say(f"Job {job} is cancelled. To resume it: {how_to('resume', job)}")


def watch(job: str, /, *, store: StoreUrl = None, broker: Broker = None) -> None:
    """Wait until a job is finished, and requeue its lost batches meanwhile."""
    fleet = named_fleet(broker=broker, store=store)
    fleet.connect()
    watched = fleet.job(job)
    manifest = watched.manifest  # an unknown job is an error before the display begins
    watch_job(watched)
    report_quarantined(fleet.ledger, manifest)


def watch_job(job: Job, output: OutputFile | None = None) -> None:
    """Wait for a job; exit with code 1 if batches failed, 130 on Ctrl-C.

    Args:
        output: the file that is written afterwards, if one is.
    """
    try:
        wait_for(job, WATCH_PATIENCE_SECONDS if output is None else PATIENCE_SECONDS)
    except KeyboardInterrupt:
        say("Stopped watching; the job goes on.")
        say_how_to_wait(job.name, output)
        sys.exit(EXIT_INTERRUPTED)


def say_how_to_wait(job: str, output: OutputFile | None = None) -> None:
    """Print the commands that wait for a job and write its file."""
    options = ["-o", "FILE.h5"] if output is None else output.options()
    say(f"To wait: {how_to('watch', job)}")
    say(f"Then: {how_to('fetch', job, *options)}")


def wait_for(job: Job, patience: float = PATIENCE_SECONDS) -> None:
    """Wait for a job and show its progress; exit with code 1 if batches failed."""
    with display(job.name, patience=patience) as show:
        job.wait(on_progress=show, on_event=say_event)
    exit_if_batches_failed(job.fleet.ledger, job.manifest)


def exit_if_batches_failed(ledger: Ledger, manifest: Manifest) -> None:
    if report_failures(ledger, manifest):
        sys.exit(EXIT_FAILED)


def quarantine(job: str, /, *, store: StoreUrl = None) -> None:
    """List the sequences of a job that have no embedding, and why. Needs only the store."""
    rows = named_fleet(store=store).job(job).quarantined()
    for row in rows:
        print_line(str(row))
    say(f"{counted(len(rows), 'sequence')} of job {job} without an embedding.")


def retry(
    job: str,
    /,
    *,
    quarantined: Annotated[bool, Flag] = False,
    damaged: Annotated[bool, Flag] = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Retry the failed batches of a job; the input file is not needed.

    Parameters
    ----------
    quarantined
        Also retry sequences without an embedding, at the rung after the last one that was tried.
    damaged
        Also compute again what is in shards that cannot be used. All shards are read to find them.
    """
    retried = named_fleet(broker=broker, store=store).job(job)
    left = retried.retry(quarantined=quarantined, damaged=damaged)
    say(f"{left:,} of {counted_batches(retried.manifest.batches)} of job {job} left to do.")
