"""What an operator does at the end of a soak test: retry what failed, verify, mend, fetch."""

import subprocess
import time
from pathlib import Path

from common.job.layout import output_prefix
from common.ledger.progress import JobState
from tests.soak.fleet import SoakFleet
from tests.soak.hostile import HostileFaults
from tests.soak.workload import Workload, wrong_counts, wrong_rows
from tests.support.processes import run_producer

#: Seconds in which batches that failed, or whose shard is damaged, must be complete.
SETTLE_SECONDS = 300.0

#: Times that failed batches are retried.
RETRIES = 3


class UnsettledError(Exception):
    """A job did not become whole."""


def settle(hostile: HostileFaults) -> list[str]:
    """Make the jobs whole, and fetch them; return what is wrong with them."""
    fleet, job = hostile.fleet, hostile.job
    try:
        for process in hostile.processes:
            process.wait(SETTLE_SECONDS)
        finish(fleet, job)
        problems = mend_shards(hostile)
        problems += problems_of(fleet, job, hostile.workload)
        for part in hostile.parts:
            problems += problems_of(fleet, submitted(fleet, hostile, part), part)
    except (UnsettledError, subprocess.TimeoutExpired) as error:
        return [*hostile.problems, str(error)]
    return hostile.problems + problems


def finish(fleet: SoakFleet, job: str) -> None:
    """Wait until no batch is left; retry those that failed, such as those of a changed input."""
    for _ in range(RETRIES):
        wait_until_finished(fleet, job)
        progress = fleet.ledger.jobs.progress(job)
        if progress is not None and not progress.counts["batches_failed"]:
            return
        command(fleet, "retry", job)
    raise UnsettledError(f"batches of {job} failed {RETRIES} times")


def wait_until_finished(fleet: SoakFleet, job: str) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        fleet.tend()
        progress = fleet.ledger.jobs.progress(job)
        if progress is not None and progress.state is JobState.FINISHED:
            return
        time.sleep(0.5)
    raise UnsettledError(f"{job} is not finished after {SETTLE_SECONDS:g} s")


def mend_shards(hostile: HostileFaults) -> list[str]:
    """Check that ``verify`` names exactly the damaged shards and ``fetch`` refuses; mend them."""
    fleet, job = hostile.fleet, hostile.job
    damaged = {shard.name for shard in hostile.still_flipped()}
    verified = run_producer("verify", job, environment=fleet.environment)
    text = verified.stdout + verified.stderr
    named = {
        shard.name for shard in (fleet.store / output_prefix(job)).iterdir() if shard.name in text
    }
    problems = (
        []
        if named == damaged
        else [f"verify named {sorted(named)}, damaged are {sorted(damaged)}: {text[:2000]}"]
    )
    print(f"{len(damaged)} damaged shards, {len(named)} named by verify", flush=True)
    if damaged:
        fetched = run_producer(
            "fetch", job, "-o", fleet.logs.parent / "damaged.h5", environment=fleet.environment
        )
        if fetched.returncode == 0:
            problems.append("fetch served a damaged shard")
        command(fleet, "retry", job, "--damaged")
        finish(fleet, job)
    return problems


def problems_of(fleet: SoakFleet, job: str, workload: Workload) -> list[str]:
    """Return what is wrong with a finished job's counts, or with any row of the fetched file."""
    progress = fleet.ledger.jobs.progress(job)
    assert progress is not None, f"Redis does not know job {job}"
    shards = (fleet.store / output_prefix(job)).glob("[0-9]*.h5")
    problems = wrong_counts(workload, progress, [shard.name for shard in shards])
    output = Path(fleet.logs.parent, f"{job}.h5")
    for arguments in (["verify", job], ["fetch", job, "-o", output]):
        done = run_producer(*arguments, environment=fleet.environment)
        if done.returncode != 0:
            return [*problems, f"{arguments[0]} {job}: {done.stdout}{done.stderr}".strip()]
    return problems + wrong_rows(workload, output)


def submitted(fleet: SoakFleet, hostile: HostileFaults, part: Workload) -> str:
    """Return the job of a part, submitted once more, which resumes it if need be."""
    arguments = hostile.submit(part.fasta)[3:]
    done = run_producer(*arguments, environment=fleet.environment)
    if done.returncode != 0:
        raise UnsettledError(f"{part.fasta} could not be submitted: {done.stderr}")
    job = done.stdout.strip()
    finish(fleet, job)
    return job


def command(fleet: SoakFleet, *arguments: str) -> None:
    """Run a command of the producer.

    Raises:
        UnsettledError: it failed.
    """
    done = run_producer(*arguments, environment=fleet.environment)
    if done.returncode != 0:
        raise UnsettledError(f"producer {' '.join(arguments)}: {done.stderr}")
