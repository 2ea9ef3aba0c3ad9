"""The progress display: a bar on a terminal or in a notebook, a line every 30 seconds elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from common.ledger.events import Event
from common.ledger.progress import Progress as JobProgress
from common.ledger.workers import WorkerInfo
from common.text import counted, counted_batches, one_line
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.observation import Observation
from producer.terminal.console import console as stderr
from producer.terminal.console import say

#: Width of the bar in characters: with the text beside it, it should fit into 80 columns.
BAR_WIDTH = 12

#: Seconds for which a job must not go on before the reason is said.
PATIENCE_SECONDS = 60.0

#: Seconds between two lines, where there is no bar.
LINE_SECONDS = 30.0


@contextmanager
def display(
    job: str, console: Console = stderr, *, patience: float = PATIENCE_SECONDS
) -> Iterator[Callable[[Observation], None]]:
    """Yield a function that shows each look at a job: as a bar, or as lines in a pipe.

    Args:
        patience: seconds after which it says why the job does not go on, once for each reason.
    """
    explain = explanation(job, patience)
    with progress_display(job, console) as show_progress:

        def show(seen: Observation) -> None:
            show_progress(seen)
            explain(diagnose(seen))

        yield show


def explanation(job: str, patience: float) -> Callable[[str], None]:
    """Return a function that prints a reason that it is given for a while, once."""
    current, since, told = "", 0.0, set()

    def explain(reason: str) -> None:
        nonlocal current, since
        if reason != current:
            current, since = reason, time.monotonic()
        if reason and reason not in told and time.monotonic() - since >= patience:
            told.add(reason)
            say(f"{job} waits: {reason}")

    return explain


@contextmanager
def progress_display(job: str, console: Console) -> Iterator[Callable[[Observation], None]]:
    """Yield a function that shows each look at a job: as a bar, or as lines in a pipe."""
    if not console.is_terminal:
        yield cell() if console.is_jupyter else lines(console, job)
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column())  # may wrap
    with Progress(BarColumn(BAR_WIDTH), text, console=console) as bar:
        task = bar.add_task("", total=None)

        def show(seen: Observation) -> None:
            bar.update(task, description=text_of(seen))
            if seen.progress is not None:
                done = seen.progress.tokens_done
                bar.update(task, total=seen.progress.tokens, completed=done)

        yield show


def text_of(seen: Observation) -> str:
    if seen.progress is None:
        return one_line(seen.trouble)
    return describe(seen.progress, seen.tokens_per_second, seen.workers)


def say_event(event: Event) -> None:
    """Print that a batch was lost and requeued."""
    worker = "" if event.worker is None else f" ({event.worker})"
    say(f"Batch {event.batch} of {event.job}, {event.rung}: {event.detail}{worker}.")


def cell() -> Callable[[Observation], None]:
    """Return a function that shows the latest observation in a notebook's cell."""
    from IPython import display as ipython  # Rich's own bar would need ipywidgets there

    handle = ipython.display({"text/plain": ""}, raw=True, display_id=True)

    def show(seen: Observation) -> None:
        text = text_of(seen)
        html = escape(text)
        if seen.progress is not None:
            done, tokens = seen.progress.tokens_done, seen.progress.tokens
            html = f'<progress value="{done}" max="{tokens}"></progress> {html}'
        handle.update({"text/plain": text, "text/html": html}, raw=True)

    return show


def lines(console: Console, job: str) -> Callable[[Observation], None]:
    """Return a function that prints a line every ``LINE_SECONDS``, if the text has changed."""
    last_time, last_text = float("-inf"), ""

    def show(seen: Observation) -> None:
        nonlocal last_time, last_text
        now, text = time.monotonic(), text_of(seen)
        finished = seen.progress is not None and seen.progress.finished
        if (finished or now - last_time >= LINE_SECONDS) and text != last_text:
            console.print(f"{job}: {one_line(text)}")
            last_time, last_text = now, text

    return show


def describe(progress: JobProgress, speed: float | None, workers: Sequence[WorkerInfo]) -> str:
    """Return one line: batches, sequences, speed and the time left."""
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
    troubles = {
        "retried": progress.rows_retried,
        "quarantined": progress.rows_quarantined,
        "requeued from lost workers": progress.leases_lost,
    }
    parts += [f"{count:,} {label}" for label, count in troubles.items() if count]
    if progress.batches_failed:
        parts.append(f"{counted_batches(progress.batches_failed)} failed")
    return " · ".join(parts)


def describe_workers(workers: Sequence[WorkerInfo]) -> str:
    if not workers:
        return "waiting for a worker"
    if all(worker.weights is None for worker in workers):
        return "loading the model"
    return counted(len(workers), "worker")


def duration(seconds: float) -> str:
    """Return seconds in readable units: 42 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
