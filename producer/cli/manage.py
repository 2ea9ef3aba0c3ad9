"""What there is to do about jobs once they are submitted: the other commands of ``producer``."""

import logging
import signal
import sys
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt
from redis.exceptions import RedisError

from common.errors import UserError
from common.job.manifest import Manifest, find_job
from common.ledger.events import log_event
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, OnInstability, Progress
from common.settings import Settings
from common.store import Store, StoreError, open_store
from common.wire.dead_letters import DeadLetters
from common.wire.queues import Queues
from common.wire.redis_client import connect, eviction_policy
from producer.scheduling.keeper import STEP_SECONDS, Keeper
from producer.scheduling.metrics import serve_metrics
from producer.scheduling.opening import open_job
from producer.scheduling.publisher import Publisher, publisher_of
from producer.scheduling.retry import quarantined_rows, retry_quarantined
from producer.terminal.console import console, counted, print_line, say
from producer.terminal.report import (
    EXIT_INTERRUPTED,
    check_output,
    report_damage,
    report_failures,
    report_quarantined,
    write_output,
)
from producer.terminal.tables import (
    output_console,
    print_dead_letters,
    print_events,
    print_job,
    print_jobs,
    print_workers,
)
from producer.terminal.watch import say_event, wait

#: Of all that are kept, in ``producer status``.
DEAD_LETTERS_SHOWN = EVENTS_SHOWN = 5

Broker = Annotated[
    str | None,
    Parameter(help="Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0."),
]
StoreUrl = Annotated[
    str | None, Parameter(help="Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.")
]

log = logging.getLogger("producer.scheduling.keeper")


def status(job: str | None = None, /, *, broker: Broker = None) -> None:
    """Show a job in full, or without JOB the fleet: workers, queues and jobs."""
    ledger = Ledger(connect(Settings.read(broker=broker).broker_url))
    out = output_console()
    if job is None:
        print_workers(out, ledger.workers.all())
        print_jobs(out, filter(None, map(ledger.jobs.progress, ledger.jobs.names())))
        if count := DeadLetters(ledger.redis).count():
            print_dead_letters(out, DeadLetters(ledger.redis).latest(DEAD_LETTERS_SHOWN), count)
        return
    progress = known_progress(ledger, job)
    queued = {rung: Queues(ledger.redis).length(queue) for rung, queue in progress.queues.items()}
    print_job(out, progress, queued, ledger.results.all(job))
    if count := ledger.events.count(job):
        print_events(out, ledger.events.latest(job, EVENTS_SHOWN), count)


def jobs(*, broker: Broker = None) -> None:
    """List the jobs that Redis knows, newest first."""
    ledger = Ledger(connect(Settings.read(broker=broker).broker_url))
    print_jobs(output_console(), filter(None, map(ledger.jobs.progress, ledger.jobs.names())))


def dead_letters(
    *, clear: Annotated[bool, Parameter(negative="")] = False, broker: Broker = None
) -> None:
    """List the messages that workers took out of the queues as none of ours, a line of JSON each.

    Newest first, with the time in seconds since 1970; the last thousand are kept.

    Parameters
    ----------
    clear
        Forget them instead.
    """
    ledger = Ledger(connect(Settings.read(broker=broker).broker_url))
    if clear:
        DeadLetters(ledger.redis).clear()
        return
    for letter in DeadLetters(ledger.redis).latest():
        print_line(letter.model_dump_json())


def cancel(job: str, /, *, broker: Broker = None) -> None:
    """Stop a job: no more of its batches are given out, and what workers have of it is dropped.

    What is done stays in the store; to submit the same input again goes on from there.
    """
    ledger = Ledger(connect(Settings.read(broker=broker).broker_url))
    known_progress(ledger, job)
    if ledger.jobs.cancel(job) is JobState.FINISHED:
        raise UserError(f"Job {job} is finished: there is nothing to cancel.")
    say(f"Job {job} is cancelled. To go on with it, submit the same input again.")


def watch(job: str, /, *, store: StoreUrl = None, broker: Broker = None) -> None:
    """Wait until a job is finished, and see that none of its batches is lost meanwhile."""
    settings = Settings.read(broker=broker, store=store)
    ledger = Ledger(connect(settings.broker_url))
    where = open_store(settings.required_store())
    manifest = known_manifest(where, job)
    watch_job(where, ledger, publisher_of(settings, ledger), manifest)
    report_quarantined(ledger, manifest)


def watch_job(store: Store, ledger: Ledger, feeder: Publisher, manifest: Manifest) -> None:
    """Wait for a job; exits with code 1 if batches failed, 130 on Ctrl-C."""
    keeper = Keeper(store, ledger, feeder, on_event=say_event, only=manifest.job)
    try:
        wait(ledger, manifest.job, console, keep=keeper.step)
    except KeyboardInterrupt:
        say(f"Stopped watching; the job goes on. producer watch {manifest.job}")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        with suppress(RedisError):
            keeper.stop()
    report_failures(ledger, manifest)


def fetch(
    job: str,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    store: StoreUrl = None,
) -> None:
    """Write a finished job's embeddings to one HDF5 file. Needs the store alone, no Redis.

    Parameters
    ----------
    output
        HDF5 file; replaced if it is there.
    """
    check_output(output)
    where = open_store(Settings.read(store=store).required_store())
    write_output(where, known_manifest(where, job), output)


def verify(job: str, /, *, store: StoreUrl = None) -> None:
    """Read all shards of a finished job, and say which are missing or damaged.

    Needs the store alone, no Redis. Exit code 0: fetch would write every row, 1: it would not.
    """
    where = open_store(Settings.read(store=store).required_store())
    report_damage(where, known_manifest(where, job))


def quarantine(job: str, /, *, store: StoreUrl = None) -> None:
    """List the sequences of a job that have no embedding, and why. Needs the store alone."""
    where = open_store(Settings.read(store=store).required_store())
    rows = quarantined_rows(where, known_manifest(where, job))
    for row in rows:
        print_line(str(row))
    say(f"{counted(len(rows), 'sequence')} of job {job} without an embedding.")


def retry(
    job: str,
    /,
    *,
    quarantined: Annotated[bool, Parameter(negative="")] = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Try again what failed in a job, without its input file.

    Parameters
    ----------
    quarantined
        Sequences without an embedding too, at the rung after the one that gave them up.
    """
    settings = Settings.read(broker=broker, store=store)
    where = open_store(settings.required_store())
    ledger = Ledger(connect(settings.broker_url))
    manifest = known_manifest(where, job)
    feeder = publisher_of(settings, ledger)
    progress = ledger.jobs.progress(job)
    if progress is not None and progress.state in (JobState.CANCELLED, JobState.STOPPED):
        raise UserError(
            f"Job {job} is {progress.state}. To go on with it, submit the same input again."
        )
    policy: OnInstability = "fail" if ledger.jobs.stops_at_instability(job) else "retry"
    left = open_job(where, ledger, feeder, manifest, policy)
    if quarantined:
        left += retry_quarantined(where, ledger, feeder, manifest)
    say(f"{left:,} of {manifest.batches:,} batches of job {job} are to be done.")


def keeper(
    *,
    high_water: PositiveInt | None = None,
    keep_days: NonNegativeFloat | None = None,
    metrics: str = "127.0.0.1:9808",
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Keep all jobs going until Ctrl-C or SIGTERM, whatever happens to workers and Redis.

    Run one or more for a fleet: one acts, the others wait to take its place.

    Parameters
    ----------
    high_water
        Messages that wait in the queues at most; default: VIRNUCPRO_HIGH_WATER, or 20000.
    keep_days
        Delete jobs, with all that the store has of them, so many days after they were finished or
        cancelled; default: never.
    metrics
        Address for Prometheus, such as 0.0.0.0:9808 for all to see; "" for none.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    settings = Settings.read(broker=broker, store=store, high_water=high_water)
    where = open_store(settings.required_store())
    ledger = Ledger(connect(settings.broker_url))
    kept = Keeper(
        where,
        ledger,
        publisher_of(settings, ledger),
        on_event=partial(log_event, log),
        keep=None if keep_days is None else timedelta(days=keep_days),
    )
    # At whatever step: each can be done once more by the next keeper.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        if metrics:
            serve_metrics(metrics, ledger, kept)
        log.info("Keeping the jobs of %s.", where.url)
        warn_of_eviction(ledger)
        keep_on(kept)
    with suppress(RedisError):
        kept.stop()


def warn_of_eviction(ledger: Ledger) -> None:
    with suppress(RedisError):  # it may not say
        if policy := eviction_policy(ledger.redis):
            log.warning(
                "This Redis throws keys away when it is full (maxmemory-policy %s), claims and "
                "results too: set it to noeviction.",
                policy,
            )


def keep_on(keeper: Keeper) -> NoReturn:
    """Keep jobs going until the process is interrupted."""
    while True:
        try:
            keeper.step()
        except (RedisError, StoreError) as error:
            log.warning("Waiting: %s", error)
        time.sleep(STEP_SECONDS)


def known_progress(ledger: Ledger, job: str) -> Progress:
    progress = ledger.jobs.progress(job)
    if progress is None:
        raise UserError(f"Redis knows no job {job!r}; producer jobs lists those it knows.")
    return progress


def known_manifest(store: Store, job: str) -> Manifest:
    manifest = find_job(store, job)
    if manifest is None:
        raise UserError(f"{store.url} has no job {job!r}. Is this the store it was submitted to?")
    return manifest


COMMANDS = (status, jobs, watch, fetch, verify, cancel, quarantine, retry, keeper, dead_letters)
