"""A soak test: a job of many small batches under constant faults of every kind.

    python -m tests.soak [--minutes 20] [--batches 20000] [--seed 1] [--every 10 20]
                              [--report FILE] [--folder FOLDER] [--keep]

Four workers and two keepers run, with a proxy as network in front of Redis. A fault occurs every 10
to 20 seconds, until the time is up or the job is done; ``--minutes 0`` shows the speed without
faults. Every row is compared with the same computation without a fleet. Exit code 1: a row or the
ledger's counts are wrong, or batches stopped by a fault did not run elsewhere within 45 seconds.
Redis's clock is set where libfaketime is installed, or named in ``LIBFAKETIME``, and the version
before takes part where its commit is in the history.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from common.ledger.progress import JobState
from tests.soak.faults import TIMES, Faults
from tests.soak.fleet import WORKERS, SoakFleet, running_fleet
from tests.soak.hostile import HostileFaults
from tests.soak.recovery import Recoveries
from tests.soak.report import Report, events_in, missed_goals, print_report, times_of, tracebacks_in
from tests.soak.schedule import Later, Schedule
from tests.soak.settle import settle
from tests.soak.workload import BATCH_TOKENS, Workload, make_workload
from tests.support.processes import run_producer

#: Seconds after the last fault in which the job must finish.
FINISH_SECONDS = 900.0

#: Seconds between two looks at the job, and between two lines of output.
LOOK_SECONDS, SAY_SECONDS = 0.2, 30.0


def main() -> int:
    options = parse_options()
    folder = Path(tempfile.mkdtemp(prefix="virnucpro-soak-", dir=options.folder))
    try:
        workload = make_workload(folder, options.batches, options.seed)
        with running_fleet(folder, workload.model) as fleet:
            report = soak(fleet, workload, options)
    except BaseException:
        print(f"The logs are in {folder}/logs", file=sys.stderr)
        raise
    print_report(report)
    if options.report is not None:
        options.report.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    if report.problems or options.keep:
        print(f"The logs are in {folder}/logs")
    else:
        shutil.rmtree(folder)
    return 1 if report.problems else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, nargs=2, default=(10.0, 20.0), metavar="SECONDS")
    parser.add_argument("--report", type=Path, help="JSON file to write")
    parser.add_argument("--folder", type=Path, help="where everything is while it runs")
    parser.add_argument("--keep", action="store_true", help="keep logs and store in any case")
    return parser.parse_args()


def soak(fleet: SoakFleet, workload: Workload, options: argparse.Namespace) -> Report:
    """Take the job through all faults, and see what became of it."""
    fleet.wait_for_workers()

    def submit(fasta: Path) -> list[str]:
        arguments = ["submit", fasta, "--model", workload.model, f"--batch-tokens={BATCH_TOKENS}"]
        return [sys.executable, "-m", "producer.cli", *map(str, arguments)]

    command = submit(workload.fasta)
    submitted = run_producer(*command[3:], environment=fleet.environment)
    if submitted.returncode != 0:
        raise RuntimeError(f"The job could not be submitted: {submitted.stderr}")
    begun, job = time.monotonic(), submitted.stdout.strip()
    progress = fleet.ledger.jobs.progress(job)
    assert progress is not None, f"Redis does not know job {job}"
    print(f"Job {job}: {progress.batches:,} batches", flush=True)
    recoveries, later = Recoveries(fleet.ledger, job, f"file://{fleet.store}"), Later()
    draw, queue = random.Random(options.seed), progress.queue
    faults = Faults(fleet, recoveries, later, draw, queue=queue, submit=command)
    hostile = HostileFaults(fleet, recoveries, later, draw, queue, job, workload, submit)
    kinds = {**faults.kinds, **hostile.kinds}
    schedule = Schedule(kinds, TIMES, faults.draw, tuple(options.every))
    finished = disturb(faults, hostile, schedule, job, options.minutes * 60)
    seconds = time.monotonic() - begun
    recoveries.look()  # what the last batches were waited for is over
    submits = [process.wait(120) for process in faults.submits]
    problems = [] if finished else [f"the job did not end in {FINISH_SECONDS:g} s without faults"]
    if finished:
        problems = settle(hostile)
    times = times_of(recoveries)
    logs = sorted(fleet.logs.iterdir())
    return Report(
        seed=options.seed,
        batches=workload.batches,
        workers=WORKERS,
        seconds=round(seconds, 1),
        problems=problems + missed_goals(times),
        faults=dict(schedule.counts),
        recoveries=times,
        events=events_in(logs),
        strange_messages=faults.strange_messages,
        ends={service.name: service.ends for service in fleet.services if service.ends},
        tracebacks=tracebacks_in(logs),
        submits=submits,
    )


def disturb(
    faults: Faults, hostile: HostileFaults, schedule: Schedule, job: str, seconds: float
) -> bool:
    """Bring about faults until the time is up or the job is done; return whether it finished."""
    last_fault = time.monotonic() + seconds
    next_word = 0.0
    try:
        while time.monotonic() < last_fault + FINISH_SECONDS:
            time.sleep(LOOK_SECONDS)
            faults.fleet.tend()
            faults.later.run_due()
            if faults.redis_stopped:
                continue
            faults.recoveries.look()
            progress = faults.fleet.ledger.jobs.progress(job)
            if progress is not None and progress.state is JobState.FINISHED:
                return True
            if time.monotonic() >= next_word:
                next_word = time.monotonic() + SAY_SECONDS
                done = "unknown" if progress is None else f"{progress.batches_done:,} done"
                print(f"{time.strftime('%H:%M:%S')}  {done}", flush=True)
            if time.monotonic() < last_fault and not (faults.redis_away or hostile.quiet):
                schedule.step()
        return False
    finally:
        faults.later.run_all()


if __name__ == "__main__":
    sys.exit(main())
