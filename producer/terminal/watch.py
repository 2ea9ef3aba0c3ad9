"""Waiting for a job: a live display on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from common.errors import UserError
from common.ledger.events import Event
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.ledger.progress import Progress as JobProgress
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.store import StoreError
from producer.terminal.console import say
from producer.terminal.tables import problems

POLL_SECONDS = 0.5

#: A job that Redis does not know may be on its way back from the store.
UNKNOWN_SECONDS = 60.0

#: Of the bar on a terminal: what is beside it should fit into 80 columns.
BAR_WIDTH = 12

#: Without a terminal, seconds between lines.
LINE_SECONDS = 30.0


def wait(
    ledger: Ledger,
    job: str,
    console: Console,
    *,
    keep: Callable[[], None],
    check: Callable[[], None] = lambda: None,
) -> JobProgress:
    """Wait until a job is finished, showing how far it is; returns its last progress.

    Args:
        keep: is called at every look, to keep the job going.
        check: likewise; what it raises ends the waiting.

    Raises:
        UserError: the job was cancelled, or the ledger knows it no longer.
    """
    speed = Speed()
    known = time.monotonic()
    with display(console, job) as show:
        while True:
            check()
            try:
                keep()
                progress = look(ledger, job, speed, show)
            except RedisError as error:
                # It may be restarting; the workers wait for it just so.
                show(f"Redis does not answer ({error}); waiting for it", None)
            except StoreError as error:
                show(f"{error} Waiting for it", None)
            else:
                known = time.monotonic() if progress else known
                if progress is None and time.monotonic() - known > UNKNOWN_SECONDS:
                    raise UserError(unknown(job))
                if progress is not None and progress.finished:
                    return progress
            time.sleep(POLL_SECONDS)


def look(ledger: Ledger, job: str, speed: "Speed", show: "Show") -> JobProgress | None:
    """Show a job's progress once; None if Redis does not know it."""
    progress = ledger.jobs.progress(job)
    if progress is None:
        show("Redis no longer knows this job: looking for it in the store", None)
        return None
    if progress.state is JobState.CANCELLED:
        raise UserError(f"Job {job} was cancelled. To go on with it, submit the same input again.")
    if progress.state is JobState.STOPPED:
        raise UserError(stopped(ledger, job))
    tokens_per_second = speed.update(time.monotonic(), progress.tokens_done)
    workers = [worker for worker in ledger.workers.all() if progress.queue in worker.queues]
    show(describe(progress, tokens_per_second, workers), progress)
    return progress


def unknown(job: str) -> str:
    return (
        f"Redis no longer knows job {job}, and no keeper brings it back. If the store still has "
        "it: submit the same input again, and it goes on from there."
    )


def stopped(ledger: Ledger, job: str) -> str:
    """Why a job ended before its end."""
    errors = "\n".join(problems(ledger.results.all(job)))
    return (
        f"Job {job} stopped, as --on-instability fail asks for:\n{errors}\n"
        "Submit the same input with --on-instability retry, and they run again in higher precision."
    )


#: Shows a line about a job, with its progress if that is known.
Show = Callable[[str, JobProgress | None], None]


@contextmanager
def display(console: Console, job: str) -> Iterator[Show]:
    """A function that shows how things are, in the way that the console can."""
    if not console.is_terminal:
        yield lines(console, job)
        return
    with Progress(BarColumn(BAR_WIDTH), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, progress: JobProgress | None) -> None:
            bar.update(task, description=text)
            if progress is not None:
                bar.update(task, total=progress.tokens, completed=progress.tokens_done)

        yield show


def say_event(event: Event) -> None:
    """Tell what was lost and is mended."""
    worker = "" if event.worker is None else f" ({event.worker})"
    say(f"Batch {event.batch} of {event.job}, {event.rung}: {event.detail}{worker}.")


def lines(console: Console, job: str) -> Show:
    """Print a line now and then, if there is something new to say."""
    last_time, last_text = float("-inf"), ""

    def show(text: str, progress: JobProgress | None) -> None:
        nonlocal last_time, last_text
        now = time.monotonic()
        due = now - last_time >= LINE_SECONDS or (progress is not None and progress.finished)
        if due and text != last_text:
            console.print(f"{job}: {text}", highlight=False, markup=False)
            last_time, last_text = now, text

    return show


def describe(progress: JobProgress, speed: float | None, workers: Sequence[WorkerInfo]) -> str:
    """One line: batches, sequences, speed and the time to go."""
    parts = [
        f"{progress.batches_done:,}/{progress.batches:,} batches",
        f"{progress.rows_done:,}/{progress.records:,} sequences",
    ]
    if speed is not None:
        parts.append(f"{speed:,.0f} tokens/s")
        if not progress.finished:
            seconds = (progress.tokens - progress.tokens_done) / speed
            parts.append(f"ETA {duration(seconds)}")
    elif not progress.finished:
        parts.append(describe_workers(workers))
    if have_other_weights(progress, workers):
        parts.append("its workers have other weights than it began with")
    troubles = {
        "retried": progress.rows_retried,
        "quarantined": progress.rows_quarantined,
        "lost with their workers and retaken": progress.leases_lost,
        "batches failed": progress.batches_failed,
    }
    parts += [f"{count:,} {label}" for label, count in troubles.items() if count]
    return " · ".join(parts)


def have_other_weights(progress: JobProgress, workers: Sequence[WorkerInfo]) -> bool:
    """Whether nobody can go on with a job, as all its workers have other weights by now."""
    present = {worker.weights for worker in workers} - {None}
    return progress.weights is not None and bool(present) and progress.weights not in present


def describe_workers(workers: Sequence[WorkerInfo]) -> str:
    if not workers:
        return "waiting for a worker"
    if all(worker.weights is None for worker in workers):
        return "loading the model"
    return "1 worker" if len(workers) == 1 else f"{len(workers)} workers"


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
