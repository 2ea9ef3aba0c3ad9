"""Commands that change jobs: cancel, retry, set the priority, delete."""

import sys
from typing import Annotated

from common.advice import how_to
from common.errors import UserError
from common.job.joint import is_joint
from common.ledger.progress import JobState
from common.text import counted, counted_batches
from common.wire.messages import Priority
from producer.cli.options import Broker, Flag, JobName, StoreUrl, named_fleet
from producer.fleet.job import Job
from producer.fleet.joint import JointJob, not_finished
from producer.terminal.console import confirmed, say


def cancel(job: JobName, /, *, broker: Broker = None) -> None:
    """Cancel a job: its waiting batches are not started, and its running ones are dropped.

    Finished batches stay in the store; producer resume goes on with the job. Of a job that is still
    being staged nothing stays: the command that submits it ends, and deletes it.
    """
    jobs = not_finished(named_fleet(broker=broker).jobs_named(job))
    is_staged = all(one.status().state is not JobState.STAGING for one in jobs)
    for one in jobs:
        one.cancel()
    if is_staged:
        say(f"Job {job} is cancelled. To resume it: {how_to('resume', job)}")
    else:
        say(f"Job {job} is cancelled: the command that submits it ends, and deletes it.")


def retry(
    job: JobName,
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
    for retried in named_fleet(broker=broker, store=store).jobs_named(job):
        left = retried.retry(quarantined=quarantined, damaged=damaged)
        batches = counted_batches(retried.manifest.batches)
        say(f"{left:,} of {batches} of job {retried.name} left to do.")


def set_priority(
    job: JobName, /, priority: Priority, *, store: StoreUrl = None, broker: Broker = None
) -> None:
    """Give a job that is under way another priority: high, normal or low.

    Batches that run go on; those that wait, and those to come, have the new priority.

    Parameters
    ----------
    priority
        Workers take batches of higher priority first.
    """
    jobs = named_fleet(broker=broker, store=store).jobs_named(job)
    moved = sum(one.set_priority(priority) for one in not_finished(jobs))
    say(f"Job {job} has {priority} priority; {counted(moved, 'waiting message')} moved.")


def delete(
    *jobs: JobName,
    yes: Annotated[bool, Flag] = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Delete jobs from the store and from Redis, for good, after asking.

    A job must be finished or cancelled. Files that were fetched from it stay.

    Parameters
    ----------
    jobs
        The jobs; nothing is deleted unless all of them can be.
    yes
        Do not ask.
    """
    if not jobs:
        raise UserError("delete: name a job, or several. To list them: producer jobs")
    fleet = named_fleet(broker=broker, store=store)
    found = [job for name in dict.fromkeys(jobs) for job in fleet.jobs_named(name)]
    for job in found:
        job.check_deletable()
    if not yes:
        ask_to_delete(found)
    for job in found:
        say(f"Deleted job {job.name}: {job.delete(running=False)}.")
    for name in filter(is_joint, jobs):
        JointJob(fleet, name).delete()


def ask_to_delete(jobs: list[Job]) -> None:
    """Ask whether to delete jobs; exit if they are to stay.

    Raises:
        UserError: there is nobody to ask.
    """
    for job in jobs:
        say(f"Job {job.name} has {job.size()} in {job.fleet.store.url}.")
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError("delete: there is no terminal to ask on. To delete without: --yes")
    if not confirmed(f"Delete {counted(len(jobs), 'job')} for good?"):
        raise UserError("Nothing was deleted.")
