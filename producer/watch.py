"""Waiting for a job: a live display on a terminal, a line now and then elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.errors import UserError
from common.ledger import JobState, Ledger
from common.ledger import Progress as JobProgress
from producer.jobs import LostWork

POLL_SECONDS = 0.5

#: Without a terminal, seconds between lines.
LINE_SECONDS = 30.0

#: The speed shown is that of the last so many seconds.
WINDOW_SECONDS = 30.0


class Speed:
    """Tokens per second over a sliding window."""

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, now: float, tokens: int) -> float | None:
        """Note the tokens done by ``now``; the speed, or None if it cannot be told yet."""
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and self._seen[0][0] < now - self._window:
            self._seen.popleft()
        (then, before) = self._seen[0]
        return (tokens - before) / (now - then) if tokens > before and now > then else None


def wait(
    ledger: Ledger,
    job: str,
    console: Console,
    *,
    lost_work: LostWork,
    check: Callable[[], None] = lambda: None,
) -> JobProgress:
    """Wait until a job is finished, showing how far it is; returns its last progress.

    Args:
        lost_work: looked after on the way.
        check: is called at every look; what it raises ends the waiting.

    Raises:
        UserError: the job was cancelled, or the ledger knows it no longer.
    """
    speed = Speed()
    with display(console) as show:
        while True:
            progress = ledger.progress(job)
            if progress is None:
                raise UserError(
                    f"Redis no longer knows job {job}. The store still has it: submit the same "
                    "input again, and it goes on from there."
                )
            tokens_per_second = speed.update(time.monotonic(), progress.count("tokens_done"))
            workers = sum(progress.queue in worker.queues for worker in ledger.workers())
            show(progress, tokens_per_second, workers)
            if progress.state is JobState.CANCELLED:
                raise UserError(f"Job {job} was cancelled.")
            if progress.finished:
                return progress
            check()
            lost_work.look()
            time.sleep(POLL_SECONDS)


Show = Callable[[JobProgress, float | None, int], None]


@contextmanager
def display(console: Console) -> Iterator[Show]:
    """A function that shows progress, in the way that the console can."""
    if not console.is_terminal:
        yield lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None, text="")

        def show(progress: JobProgress, speed: float | None, workers: int) -> None:
            bar.update(
                task,
                description=progress.job,
                total=progress.tokens,
                completed=progress.count("tokens_done"),
                text=describe(progress, speed, workers),
            )

        yield show


def lines(console: Console) -> Show:
    """Show a line when something worth a line has changed."""
    last_time, last_text = float("-inf"), ""

    def show(progress: JobProgress, speed: float | None, workers: int) -> None:
        nonlocal last_time, last_text
        text, now = f"{progress.job}: {describe(progress, speed, workers)}", time.monotonic()
        due = now - last_time >= LINE_SECONDS or progress.finished
        if due and text != last_text:
            console.print(text, highlight=False)
            last_time, last_text = now, text

    return show


def describe(progress: JobProgress, speed: float | None, workers: int) -> str:
    """One line: batches, sequences, speed and the time to go."""
    parts = [
        f"{progress.batches_done:,}/{progress.batches:,} batches",
        f"{progress.rows_done:,}/{progress.records:,} sequences",
    ]
    if speed is not None:
        parts.append(f"{speed:,.0f} tokens/s")
        if not progress.finished:
            seconds = (progress.tokens - progress.count("tokens_done")) / speed
            parts.append(f"ETA {duration(seconds)}")
    elif not progress.finished:
        parts.append("waiting for a worker" if workers == 0 else f"{workers} workers")
    for name, label in (("rows_unstable", "unstable"), ("leases_lost", "taken over")):
        if progress.count(name):
            parts.append(f"{progress.count(name):,} {label}")
    if progress.count("batches_failed"):
        parts.append(f"{progress.count('batches_failed'):,} batches failed")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
