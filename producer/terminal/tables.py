"""The tables of ``producer status`` and ``producer jobs``."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from common.ledger.events import Event
from common.ledger.progress import JobState, Progress
from common.rungs import NEXT_RUNG, Rung
from common.text import counted, counted_batches, counted_bytes, duration, one_line, printable
from common.wire.dead_letters import DeadLetter
from common.wire.messages import BatchResult
from producer.scheduling.deletion import Size
from producer.scheduling.waiting import problems

#: Width in characters where the output is not a terminal, unless COLUMNS says another: a row is
#: one line.
PIPE_WIDTH = 10_000

#: Options of a table without lines.
UNFRAMED: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}


def output_console() -> Console:
    options: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    console = Console(**options)  # as wide as the terminal, or as COLUMNS says
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(width=PIPE_WIDTH, **options)


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    framed: bool = True,
) -> None:
    """Print rows as a table, or below one another where a table would cut words.

    The first column names the row, and is never wrapped: the next command may need it.
    """
    table = [[Text(one_line(cell)) for cell in row] for row in (header, *rows)]
    # A line and a space at each side of a column, or two spaces between them.
    frame = 3 * len(header) + 1 if framed else 2 * (len(header) - 1)
    widths = column_widths(console, table, frame)
    if widths is not None:
        titles, *cells = table
        columns = (Column(t, width=w) for t, w in zip(titles, widths, strict=True))
        grid = Table(*columns) if framed else Table(*columns, **UNFRAMED)
        for row in cells:
            grid.add_row(*row)
        console.print(grid)
        return
    labels, *records = table
    for first, *others in records:
        console.print(first, soft_wrap=True)
        for label, value in zip(labels[1:], others, strict=True):
            line = Text.assemble(label, ": ", value)
            console.print(Padding(line, (0, 0, 0, 2)), overflow="fold")


def column_widths(console: Console, rows: Sequence[Sequence[Text]], frame: int) -> list[int] | None:
    """Return widths for the columns of a table that cut no word; None if there are none.

    Rich's own narrowing knows no shortest width.

    Args:
        frame: characters of a line that are beside the columns.
    """
    unlimited = console.options.update(width=PIPE_WIDTH)
    sizes = [
        [Measurement.get(console, unlimited, cell) for cell in column]
        for column in zip(*rows, strict=True)
    ]
    widest = [max(cell.maximum for cell in column) for column in sizes]
    widths = [max(cell.minimum for cell in column) for column in sizes]
    widths[0] = widest[0]
    spare = console.width - sum(widths) - frame
    if spare < 0:
        return None
    for index, width in enumerate(widest):
        more = min(spare, width - widths[index])
        widths[index] += more
        spare -= more
    return widths


def print_jobs(
    console: Console,
    jobs: Iterable[Progress],
    keep: timedelta | None = None,
    sizes: Mapping[str, Size] | None = None,
) -> None:
    """Print a row for each job.

    Args:
        keep: for how long closed jobs are kept; None: not known, or for ever.
        sizes: of the jobs in the store; None: they were not asked for.
    """
    columns: dict[str, Callable[[Progress], str]] = {
        "job": lambda job: job.job,
        "state": state_of,
        "model": lambda job: job.model,
        "batches": lambda job: f"{job.batches_done:,}/{job.batches:,}",
        "sequences": lambda job: f"{job.rows_done:,}/{job.records:,}",
        "tokens/s per device": mean_speed,
        "submitted": lambda job: local_time(job.created),
    }
    if keep is not None:
        columns["deleted after"] = lambda job: local_time_or_none(job.expires(keep))
    if sizes is not None:
        columns["objects"] = lambda job: f"{sizes[job.job].objects:,}"
        columns["size"] = lambda job: counted_bytes(sizes[job.job].bytes)
    rows = ([text(job) for text in columns.values()] for job in jobs)
    print_table(console, list(columns), rows)


def print_job(
    console: Console,
    job: Progress,
    queued: Mapping[Rung, int],
    results: list[BatchResult],
    keep: timedelta | None = None,
) -> None:
    """Print one job in full: counters, the ladder, and every result that was not ok.

    Args:
        keep: as in ``print_jobs``.
    """
    first, expires = next(iter(job.queues)), job.expires(keep)
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False)
    rows = {
        "job": job.job,
        "state": state_of(job),
        "owner": job.owner,
        "input": job.input,
        "submitted": local_time(job.created),
        **({} if job.ended is None else {"ended": local_time(job.ended)}),
        **({} if expires is None else {"deleted after": local_time(expires)}),
        "priority": job.priority,
        "model": job.model,
        "weights": job.weights or "not known until a worker has started",
        "batches": f"{job.batches_done:,} of {job.batches:,} done, {job.leased:,} running"
        f"{', more are being staged' if job.state is JobState.STAGING else ''}",
        "queue": f"{job.queue}: {queued[first]:,} waiting",
        "sequences": f"{job.rows_done:,} of {job.records:,}",
        **({"identical": f"{job.identical:,} more, as one of them"} if job.identical else {}),
        "by precision": ", ".join(f"{n:,} {rung}" for rung, n in job.rows_by_precision.items()),
        "tokens": f"{job.tokens_done:,} of {job.tokens:,}",
        "tokens/s": speed_of(job),
        "elapsed": None if job.elapsed is None else duration(job.elapsed),
        "time left": "-" if job.eta is None else duration(job.eta),
        "tokens/s per device": mean_speed(job),
        "device time": f"{job.device_seconds:,.1f} s",
        "requeued": f"{counted_batches(job.leases_lost)} from lost workers",
        "retried": f"{counted(job.rows_retried, 'sequence')} at a higher rung",
        "quarantined": f"{counted(job.rows_quarantined, 'sequence')} without an embedding",
        "failed": counted_batches(job.batches_failed),
    }
    for name, value in rows.items():
        table.add_row(name, Text(one_line(value or "-")))
    console.print(table)
    if job.unstable_at(first):
        print_ladder(console, job, queued)
    for line in problems(results):
        console.print(one_line(line))


def print_ladder(console: Console, job: Progress, queued: Mapping[Rung, int]) -> None:
    """Print a row for each rung of a job."""
    header = ("rung", "queued", "batches", "sequences embedded", "not finite", "retried at")
    rows = (
        (
            rung,
            f"{queued[rung]:,}",
            f"{job.batches_at(rung):,}",
            f"{job.embedded_at(rung):,}",
            f"{job.unstable_at(rung):,}",
            NEXT_RUNG[rung] or "quarantine",
        )
        for rung in job.queues
    )
    print_table(console, header, rows)


def print_unreadable(console: Console, reasons: Iterable[object]) -> None:
    """Print a line for each entry that this version cannot read."""
    for reason in reasons:
        console.print(one_line(str(reason)), soft_wrap=True)


def print_reason(console: Console, job: str, reason: str) -> None:
    """Print why a job does not go on, with a command that can be copied."""
    text = printable(f"{job} waits: {reason}")
    console.print(text, soft_wrap=True)


def print_events(console: Console, events: Sequence[Event], count: int) -> None:
    """Print the latest events of a job, and how many earlier ones are kept."""
    header = ("time", "event", "batch", "rung", "worker", "detail")
    rows = (
        (
            local_time(event.time),
            event.event,
            "" if event.batch is None else str(event.batch),
            event.rung or "",
            event.worker or "",
            event.detail,
        )
        for event in events
    )
    print_table(console, header, rows)
    if more := count - len(events):
        console.print(f"… and {counted(more, 'earlier event')}")


def print_dead_letters(console: Console, letters: Sequence[DeadLetter], count: int) -> None:
    """Print the latest dead letters, and how many there are."""
    rows = ((local_time(letter.time), letter.queue, letter.reason) for letter in letters)
    print_table(console, ("received", "queue", "reason"), rows)
    console.print(
        f"{counted(count, 'message')} that no worker could read. To list them: producer "
        "dead-letters; to delete them: producer dead-letters --clear"
    )


def local_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "?"  # not a time


def local_time_or_none(seconds: float | None) -> str:
    return "-" if seconds is None else local_time(seconds)


def state_of(job: Progress) -> str:
    """Return a job's state in words; an open job is "queued" until one of its batches starts."""
    if job.finished and job.batches_failed:
        return "finished with failures"
    if job.state is JobState.OPEN:
        return "running" if job.leased or job.batches_done else "queued"
    return job.state


def mean_speed(job: Progress) -> str:
    """Return the tokens per second of device time."""
    return f"{job.tokens_done / job.device_seconds:,.0f}" if job.device_seconds else "-"


def speed_of(job: Progress) -> str:
    """Return the tokens per second since the job started, on all devices together."""
    return "-" if job.tokens_per_second is None else f"{job.tokens_per_second:,.0f}"
