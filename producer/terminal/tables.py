"""The tables of ``producer status`` and ``producer jobs``."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from common.ledger.events import Event
from common.ledger.progress import JobState, Progress
from common.ledger.workers import WorkerInfo
from common.model_specs import ModelSource
from common.rungs import NEXT_RUNG, Rung
from common.text import counted, counted_batches
from common.wire.dead_letters import DeadLetter
from common.wire.messages import BatchResult
from producer.scheduling.waiting import problems

#: Width of a table in characters if the output is not a terminal.
PIPE_WIDTH = 200


def output_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def print_jobs(console: Console, jobs: Iterable[Progress]) -> None:
    # The job's name is never shortened: the next command needs it.
    job_column = Column("job", no_wrap=True, overflow="ignore")
    others = ("state", "model", "batches", "sequences", "tokens/s per device", "submitted")
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
    """Print one job in full: counters, the ladder, and every result that was not ok."""
    table, first = Table(show_header=False), next(iter(job.queues))
    rows = {
        "job": job.job,
        "state": state_of(job),
        "model": job.model,
        "weights": job.weights or "not known until a worker has started",
        "batches": f"{job.batches_done:,} of {job.batches:,} done, {job.leased:,} running",
        "queue": f"{job.queue}: {queued[first]:,} waiting",
        "sequences": f"{job.rows_done:,} of {job.records:,}",
        "by precision": ", ".join(f"{n:,} {rung}" for rung, n in job.rows_by_precision.items()),
        "tokens": f"{job.tokens_done:,} of {job.tokens:,}",
        "tokens/s per device": mean_speed(job),
        "device time": f"{job.device_seconds:,.1f} s",
        "requeued": f"{counted_batches(job.leases_lost)} from lost workers",
        "retried": f"{counted(job.rows_retried, 'sequence')} at a higher rung",
        "quarantined": f"{counted(job.rows_quarantined, 'sequence')} without an embedding",
        "failed": counted_batches(job.batches_failed),
    }
    for name, value in rows.items():
        table.add_row(name, value or "-")
    console.print(table)
    if job.unstable_at(first):
        console.print(ladder_table(job, queued))
    for line in problems(results):
        console.print(line, highlight=False, markup=False)


def ladder_table(job: Progress, queued: Mapping[Rung, int]) -> Table:
    """Return a table with a row for each rung of the job."""
    table = Table("rung", "queued", "batches", "sequences embedded", "not finite", "retried at")
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


def print_workers(console: Console, workers: Iterable[WorkerInfo]) -> None:
    table = Table("worker", "device", "model", "weights", "precision", "serves")
    for worker in workers:
        table.add_row(
            worker.name,
            worker.device,
            worker.model,
            worker.weights or "loading",
            worker.precision,
            " ".join(served_rungs(worker)),
        )
    console.print(table)


def served_rungs(worker: WorkerInfo) -> list[str]:
    """Return a worker's queues of normal priority, without the model's name."""
    stem = f"{stem_of(worker)}."
    return [queue.removeprefix(stem) for queue in worker.queues if queue.startswith(stem)]


def print_events(console: Console, events: Sequence[Event], count: int) -> None:
    """Print the latest events of a job, and how many earlier ones are kept."""
    table = Table("time", "event", "batch", "rung", "worker", "detail")
    for event in events:
        batch = "" if event.batch is None else str(event.batch)
        source = batch, event.rung or "", event.worker or ""
        table.add_row(local_time(event.time), event.event, *source, Text(event.detail))
    console.print(table)
    if more := count - len(events):
        console.print(f"… and {counted(more, 'earlier event')}", highlight=False)


def print_dead_letters(console: Console, letters: Sequence[DeadLetter], count: int) -> None:
    """Print the latest dead letters, and how many there are."""
    table = Table("received", "queue", "reason")
    for letter in letters:
        table.add_row(local_time(letter.time), letter.queue, Text(letter.reason))
    console.print(table)
    console.print(
        f"{counted(count, 'message')} that no worker could read. To list them: producer "
        "dead-letters; to delete them: producer dead-letters --clear",
        highlight=False,
    )


def local_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def stem_of(worker: WorkerInfo) -> str:
    return ModelSource.parse(worker.model).queue


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
