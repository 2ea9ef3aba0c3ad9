"""``producer watch``, and waiting for a job in other commands."""

import sys
import time
from collections.abc import Callable

from common.advice import how_to
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from producer.cli.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Broker,
    JobName,
    Json,
    StoreUrl,
    named_fleet,
)
from producer.fleet.following import FollowedFile
from producer.fleet.job import Job
from producer.fleet.output import Output
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.observation import Observation
from producer.terminal.console import print_line, say, warn
from producer.terminal.documents import WatchLine
from producer.terminal.report import report_failures, report_quarantined
from producer.terminal.watch import PATIENCE_SECONDS, display, say_event

#: Seconds after which ``producer watch``, which begins late, says why its job does not go on.
WATCH_PATIENCE_SECONDS = 3.0

#: Seconds between two lines of ``producer watch --json``, at least.
JSON_SECONDS = 1.0


def watch(
    job: JobName, /, *, json: Json = False, store: StoreUrl = None, broker: Broker = None
) -> None:
    """Wait until a job is finished, and requeue its lost batches meanwhile.

    With --json, a line of JSON whenever the job went on, at most one a second, and one at its end.
    """
    fleet = named_fleet(broker=broker, store=store)
    fleet.connect()
    for watched in fleet.jobs_named(job):
        manifest = watched.manifest  # an unknown job is an error before the display begins
        watch_job(watched, name=job, json=json)
        if not json:
            report_quarantined(fleet.ledger, manifest)


def watch_job(
    job: Job,
    output: Output | None = None,
    file: FollowedFile | None = None,
    *,
    name: str | None = None,
    json: bool = False,
) -> None:
    """Wait for a job; exit with code 1 if batches failed, 130 on Ctrl-C.

    Args:
        output: the file that the job is waited for, if there is one.
        file: what is written of it meanwhile.
        name: of what the user waits for, if that is a joint job.
    """
    try:
        if json:
            job.wait(on_progress=lines_of_json(job.name))
            exit_if_batches_failed(job.fleet.ledger, job.manifest)
        else:
            wait_for(job, WATCH_PATIENCE_SECONDS if output is None else PATIENCE_SECONDS, file)
    except KeyboardInterrupt:
        say("Stopped watching; the job goes on.")
        say_how_to_wait(name or job.name, output)
        sys.exit(EXIT_INTERRUPTED)


def lines_of_json(job: str) -> Callable[[Observation], None]:
    """Return a function that prints a line of JSON for each look that shows something new."""
    last_time, last = float("-inf"), None

    def show(seen: Observation) -> None:
        nonlocal last_time, last
        line = WatchLine.of(job, seen, diagnose(seen))
        new = line.model_dump(exclude={"time", "tokens_per_second", "eta_seconds"})
        if seen.has_ended or (new != last and time.monotonic() - last_time >= JSON_SECONDS):
            print_line(line.text())
            sys.stdout.flush()
            last_time, last = time.monotonic(), new

    return show


def say_how_to_wait(job: str, output: Output | None = None) -> None:
    """Print the commands that wait for a job and write its file."""
    options = ["-o", "FILE.h5"] if output is None else output.options()
    say(f"To wait: {how_to('watch', job)}")
    say(f"Then: {how_to('fetch', job, *options)}")


def wait_for(
    job: Job, patience: float = PATIENCE_SECONDS, file: FollowedFile | None = None
) -> None:
    """Wait for a job and show its progress; exit with code 1 if batches failed.

    Args:
        file: what is written meanwhile.
    """
    with display(job.name, patience=patience) as show_progress:
        problem = None

        def show(seen: Observation) -> None:
            nonlocal problem
            show_progress(seen)
            if file is not None and problem is None and not seen.has_ended:
                problem = file.problem
                if problem is not None:
                    warn(f"The file can only be written at the job's end. {problem}")

        job.wait(on_progress=show, on_event=say_event)
    exit_if_batches_failed(job.fleet.ledger, job.manifest)


def exit_if_batches_failed(ledger: Ledger, manifest: Manifest) -> None:
    if report_failures(ledger, manifest):
        sys.exit(EXIT_FAILED)
