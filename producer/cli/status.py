"""Commands that show workers, queues and jobs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, TypeVar

from redis.exceptions import ResponseError
from rich.console import Console

from common.bounded_map import bounded_map
from common.errors import UserError
from common.job.joint import is_joint
from common.ledger.events import Event
from common.ledger.progress import Progress
from common.ledger.unreadable import UnreadableJobError, is_odd_value
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.wire.dead_letters import DeadLetters
from common.wire.messages import BatchResult
from common.wire.queues import Queues
from producer.cli.options import Broker, Flag, JobName, Json, StoreUrl, named_fleet
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.scheduling.deletion import Size
from producer.scheduling.waiting import problems
from producer.terminal.console import print_line
from producer.terminal.documents import (
    FleetStatus,
    JobList,
    JobStatus,
    JointStatus,
    PrintedJob,
    PrintedWorker,
)
from producer.terminal.tables import (
    output_console,
    print_dead_letters,
    print_events,
    print_job,
    print_jobs,
    print_reason,
    print_unreadable,
)
from producer.terminal.worker_table import print_workers

#: The number of dead letters and of events that ``producer status`` shows.
DEAD_LETTERS_SHOWN = EVENTS_SHOWN = 5

T = TypeVar("T")


def status(job: JobName | None = None, /, *, json: Json = False, broker: Broker = None) -> None:
    """Show a job in full, or without JOB the fleet: workers, queues and jobs."""
    fleet = named_fleet(broker=broker)
    if job is None:
        show_fleet(fleet, json=json)
    else:
        show_jobs(job, fleet.jobs_named(job), json=json)


def jobs(
    *,
    sizes: Annotated[bool, Flag] = False,
    json: Json = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """List the jobs that Redis knows, newest first.

    Parameters
    ----------
    sizes
        Show what each job takes in the store, too, whose objects are all listed for it.
    """
    fleet = named_fleet(broker=broker, store=store)
    known, unreadable = known_jobs(fleet)
    found = sizes_of(fleet, known) if sizes else None
    keep = keep_of(fleet)
    if json:
        jobs_ = tuple(PrintedJob.of(job, keep, found[job.job] if found else None) for job in known)
        print_line(JobList(jobs=jobs_, unreadable=tuple(map(str, unreadable))).text())
        return
    out = output_console()
    print_jobs(out, known, keep, found)
    print_unreadable(out, unreadable)


def known_jobs(fleet: Fleet) -> tuple[list[Progress], list[object]]:
    """Return the jobs that Redis knows, newest first, and why others cannot be read."""
    known: list[Progress] = []
    unreadable: list[object] = []
    for name in fleet.ledger.jobs.names():
        try:
            progress = fleet.ledger.jobs.progress(name)
        except UnreadableJobError as error:
            unreadable.append(error)
        else:
            known += [progress] if progress is not None else []  # it may just have been deleted
    return known, unreadable


def sizes_of(fleet: Fleet, known: Sequence[Progress]) -> dict[str, Size]:
    """Return what each job takes in the store."""
    names = [job.job for job in known]
    sizes = bounded_map(lambda name: fleet.job(name).size(), names, fleet.store.parallel_reads)
    return dict(zip(names, sizes, strict=True))


def keep_of(fleet: Fleet) -> timedelta | None:
    """Return for how long closed jobs are kept; None if that is not known, or for ever.

    The store need not be named where Redis has one only.
    """
    stores = fleet.ledger.stores
    return stores.keep(fleet.store.url) if fleet.settings.store else stores.only_keep()


def show_fleet(fleet: Fleet, *, json: bool = False) -> None:
    letters, unreadable = DeadLetters(fleet.ledger.redis), list[object]()
    entries = fleet.ledger.workers.entries()
    workers = list(filter(None, entries.values()))
    others = sorted(name for name, worker in entries.items() if worker is None)
    unreadable += [f"Worker {name} is of another version of the program." for name in others]
    known, odd_jobs = known_jobs(fleet)
    keep, count = keep_of(fleet), shown(letters.count, 0, unreadable)
    if json:
        document = FleetStatus(
            workers=tuple(map(PrintedWorker.of, workers)),
            jobs=tuple(PrintedJob.of(job, keep) for job in known),
            dead_letters=count,
            unreadable=tuple(map(str, [*unreadable, *odd_jobs])),
        )
        print_line(document.text())
        return
    out = output_console()
    show_workers(out, fleet, workers)
    print_jobs(out, known, keep)
    if count:
        print_dead_letters(out, letters.latest(DEAD_LETTERS_SHOWN), count)
    print_unreadable(out, [*unreadable, *odd_jobs])


def show_workers(out: Console, fleet: Fleet, workers: Sequence[WorkerInfo]) -> None:
    registry = fleet.ledger.workers
    silence = registry.silence(worker.name for worker in workers)
    print_workers(out, workers, now=fleet.ledger.now().timestamp(), silence=silence)


@dataclass(frozen=True)
class Look:
    """All that is shown of a job; what this version cannot read is left out, with the reason."""

    progress: Progress
    keep: timedelta | None
    queued: dict[Rung, int]
    results: list[BatchResult]
    reason: str
    workers: list[WorkerInfo]
    events: list[Event]
    event_count: int
    unreadable: list[object] = field(default_factory=list)


def look_at(job: Job) -> Look:
    """Look at a job once.

    Raises:
        UnknownJobError: Redis does not know the job.
    """
    ledger, progress = job.fleet.ledger, job.status()
    queues, unreadable = Queues(ledger.redis), list[object]()
    none: list[BatchResult] = []
    nobody: list[WorkerInfo] = []
    return Look(
        progress=progress,
        keep=keep_of(job.fleet),
        queued={
            rung: shown(partial(queues.length, queue), 0, unreadable)
            for rung, queue in progress.queues.items()
        },
        results=shown(lambda: ledger.results.all(job.name), none, unreadable),
        reason=shown(lambda: job.why_waiting(progress), "", unreadable),
        workers=shown(job.workers, nobody, unreadable),
        events=shown(lambda: ledger.events.latest(job.name, EVENTS_SHOWN), [], unreadable),
        event_count=shown(lambda: ledger.events.count(job.name), 0, unreadable),
        unreadable=unreadable,
    )


def show_jobs(name: str, jobs: Sequence[Job], *, json: bool = False) -> None:
    """Show a job in full, or all jobs of a joint one."""
    if not json:
        for job in jobs:
            show_job(job)
        return
    documents = tuple(document_of(look_at(job)) for job in jobs)
    found = JointStatus(job=name, jobs=documents) if is_joint(name) else documents[0]
    print_line(found.text())


def document_of(seen: Look) -> JobStatus:
    return JobStatus.of_job(
        seen.progress,
        seen.keep,
        queued=seen.queued,
        waits=seen.reason,
        workers=seen.workers,
        problems=problems(seen.results),
        events=seen.events,
        unreadable=reasons_of(seen),
    )


def reasons_of(seen: Look) -> list[str]:
    """Return why something of a job cannot be read, each reason once."""
    return list(dict.fromkeys(map(str, seen.unreadable)))


def show_job(job: Job) -> None:
    seen, out = look_at(job), output_console()
    print_job(out, seen.progress, seen.queued, seen.results, seen.keep)
    if seen.reason:
        print_reason(out, job.name, seen.reason)
    if seen.workers:
        show_workers(out, job.fleet, seen.workers)
    if seen.event_count:
        print_events(out, seen.events, seen.event_count)
    print_unreadable(out, reasons_of(seen))


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
