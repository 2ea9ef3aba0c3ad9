"""What ``producer status`` and ``producer jobs`` show."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from common.ledger.events import Event
from common.ledger.progress import Progress
from common.ledger.workers import WorkerInfo
from common.model_specs import ModelSource
from common.rungs import NEXT_RUNG, Rung
from common.wire.dead_letters import DeadLetter
from common.wire.messages import BatchResult, Status
from producer.terminal.console import counted

#: Rows and batches that are named one by one; the rest are counted.
SHOWN = 20

#: Columns where nobody looks at a screen.
PIPE_WIDTH = 200


def output_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def print_jobs(console: Console, jobs: Iterable[Progress]) -> None:
    # A job's name is what the next command needs: it is shown whole.
    job_column = Column("job", no_wrap=True, overflow="ignore")
    others = ("state", "model", "batches", "sequences", "tokens/s a device", "submitted")
    table = Table(job_column, *others)
    for job in jobs:
        table.add_row(
            job.job,
            state_of(job),
            job.model,
            f"{job.batches_done:,}/{job.batches:,}",
            f"{job.rows_done:,}/{job.records:,}",
            mean_speed(job),
            local_time(job.created),
        )
    console.print(table)


def print_job(
    console: Console, job: Progress, queued: Mapping[Rung, int], results: list[BatchResult]
) -> None:
    """One job in full: counters, the ladder rung by rung, and every result that was not ok."""
    table, first = Table(show_header=False), next(iter(job.queues))
    rows = {
        "job": job.job,
        "state": state_of(job),
        "model": job.model,
        "weights": job.weights or "not known before a worker has started",
        "batches": f"{job.batches_done:,} of {job.batches:,} done, {job.leased:,} running",
        "queue": f"{job.queue}: {queued[first]:,} waiting",
        "sequences": f"{job.rows_done:,} of {job.records:,}",
        "by precision": ", ".join(f"{n:,} {rung}" for rung, n in job.rows_by_precision.items()),
        "tokens": f"{job.tokens_done:,} of {job.tokens:,}",
        "tokens/s a device": mean_speed(job),
        "device time": f"{job.device_seconds:,.1f} s",
        "taken over": f"{job.leases_lost:,} batches from workers that went away",
        "retried": f"{job.rows_retried:,} sequences at a higher rung",
        "quarantined": f"{job.rows_quarantined:,} sequences without numbers",
        "failed": f"{job.batches_failed:,} batches",
    }
    for name, value in rows.items():
        table.add_row(name, value or "-")
    console.print(table)
    if job.unstable_at(first):
        console.print(ladder_table(job, queued))
    for line in problems(results):
        console.print(line, highlight=False, markup=False)


def ladder_table(job: Progress, queued: Mapping[Rung, int]) -> Table:
    """What every rung did: a row for each that the job's batches may be at."""
    table = Table("rung", "queued", "batches", "sequences embedded", "not finite", "these go on to")
    for rung in job.queues:
        table.add_row(
            rung,
            f"{queued[rung]:,}",
            f"{job.batches_at(rung):,}",
            f"{job.embedded_at(rung):,}",
            f"{job.unstable_at(rung):,}",
            NEXT_RUNG[rung] or "quarantine",
        )
    return table


def problems(results: Iterable[BatchResult]) -> list[str]:
    """What went wrong: a line for each batch that failed, for each row that no rung could embed,
    and for each that stopped its job.
    """
    lines = []
    for result in results:
        if result.status is Status.FAILED:
            lines.append(f"batch {result.index} ({result.rung}) failed: {result.error}")
        lines += [f"quarantined: {bad}" for bad in result.quarantined]
        lines += [f"not finite: {bad}" for bad in result.unstable if result.stops_job]
    return first_lines(lines)


def first_lines(lines: Sequence[object]) -> list[str]:
    """The first few lines, and how many more there are."""
    more = len(lines) - SHOWN
    first = [str(line) for line in lines[:SHOWN]]
    return first if more <= 0 else [*first, f"… and {more:,} more"]


def print_workers(console: Console, workers: Iterable[WorkerInfo]) -> None:
    table = Table("worker", "device", "model", "weights", "precision", "takes")
    for worker in workers:
        table.add_row(
            worker.name,
            worker.device,
            worker.model,
            worker.weights or "loading",
            worker.precision,
            " ".join(steps_of(worker)),
        )
    console.print(table)


def steps_of(worker: WorkerInfo) -> list[str]:
    """What a worker takes, in short: its queues of normal priority without the model's name."""
    stem = f"{stem_of(worker)}."
    return [queue.removeprefix(stem) for queue in worker.queues if queue.startswith(stem)]


def print_events(console: Console, events: Sequence[Event], count: int) -> None:
    """What went wrong with a job lately and was mended, and how many more such events are kept."""
    table = Table("event of", "what", "batch", "rung", "worker", "detail")
    for event in events:
        batch = "" if event.batch is None else str(event.batch)
        place = batch, event.rung or "", event.worker or ""
        table.add_row(local_time(event.time), event.event, *place, Text(event.detail))
    console.print(table)
    if more := count - len(events):
        console.print(f"… and {counted(more, 'earlier event')}", highlight=False)


def print_dead_letters(console: Console, letters: Sequence[DeadLetter], count: int) -> None:
    """The latest messages that were none of ours, and how many there are."""
    table = Table("dead letter of", "queue", "reason")
    for letter in letters:
        table.add_row(local_time(letter.time), letter.queue, Text(letter.reason))
    console.print(table)
    console.print(
        f"{counted(count, 'message')} that no worker could take. In full: producer dead-letters; "
        "to forget them: producer dead-letters --clear",
        highlight=False,
    )


def local_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def stem_of(worker: WorkerInfo) -> str:
    return ModelSource.parse(worker.model).queue


def state_of(job: Progress) -> str:
    if job.finished and job.batches_failed:
        return "finished with failures"
    return job.state


def mean_speed(job: Progress) -> str:
    """Tokens per second of device time: what one device does."""
    return f"{job.tokens_done / job.device_seconds:,.0f}" if job.device_seconds else "-"
