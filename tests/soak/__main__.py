"""A soak test: a job of many small batches under constant faults of every kind.

    python -m tests.soak [--minutes 20] [--batches 20000] [--seed 1] [--every 10 20]
                              [--report FILE] [--folder FOLDER] [--keep]

Four workers and two keepers run, with a proxy as network in front of Redis. A fault occurs every 10
to 20 seconds, until the time is up or the job is done; ``--minutes 0`` shows the speed without
faults. Every row is compared with the same computation without a fleet. Exit code 1: a row or the
ledger's counts are wrong, or batches stopped by a fault did not run elsewhere within 45 seconds.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from common.job.layout import output_prefix
from common.ledger.progress import JobState
from tests.soak.faults import TIMES, Faults
from tests.soak.fleet import WORKERS, SoakFleet, running_fleet
from tests.soak.recovery import Recoveries
from tests.soak.report import Report, events_in, missed_goals, print_report, times_of, tracebacks_in
from tests.soak.schedule import Later, Schedule
from tests.soak.workload import BATCH_TOKENS, Workload, make_workload, wrong_counts, wrong_rows
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
            report = soak(fleet, workload, folder, options)
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


def soak(fleet: SoakFleet, workload: Workload, folder: Path, options: argparse.Namespace) -> Report:
    """Take the job through all faults, and see what became of it."""
    fleet.wait_for_workers()
    arguments = ["submit", workload.fasta, "--model", workload.model]
    arguments += [f"--batch-tokens={BATCH_TOKENS}"]
    submitted = run_producer(*arguments, environment=fleet.environment)
    if submitted.returncode != 0:
        raise RuntimeError(f"The job could not be submitted: {submitted.stderr}")
    begun, job = time.monotonic(), submitted.stdout.strip()
    progress = fleet.ledger.jobs.progress(job)
    assert progress is not None, f"Redis does not know job {job}"
    print(f"Job {job}: {progress.batches:,} batches", flush=True)
    recoveries, later = Recoveries(fleet.ledger, job, f"file://{fleet.store}"), Later()
    faults = Faults(
        fleet,
        recoveries,
        later,
        random.Random(options.seed),
        queue=progress.queue,
        submit=[sys.executable, "-m", "producer.cli", *map(str, arguments)],
    )
    schedule = Schedule(faults.kinds, TIMES, faults.draw, tuple(options.every))
    finished = disturb(faults, schedule, job, options.minutes * 60)
    seconds = time.monotonic() - begun
    recoveries.look()  # what the last batches were waited for is over
    submits = [process.wait(120) for process in faults.submits]
    problems = [] if finished else [f"the job did not end in {FINISH_SECONDS:g} s without faults"]
    if finished:
        problems = problems_of(fleet, workload, job, folder)
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


def disturb(faults: Faults, schedule: Schedule, job: str, seconds: float) -> bool:
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
            if time.monotonic() < last_fault and not faults.redis_away:
                schedule.step()
        return False
    finally:
        faults.later.run_all()


def problems_of(fleet: SoakFleet, workload: Workload, job: str, folder: Path) -> list[str]:
    """Return what is wrong with a finished job's counts, or with any row of the fetched file."""
    progress = fleet.ledger.jobs.progress(job)
    assert progress is not None, f"Redis does not know job {job}"
    shards = (fleet.store / output_prefix(job)).glob("[0-9]*.h5")
    problems = wrong_counts(workload, progress, [shard.name for shard in shards])
    output = folder / "soak.h5"
    fetched = run_producer("fetch", job, "-o", output, environment=fleet.environment)
    if fetched.returncode != 0:
        return [*problems, f"fetch: {fetched.stderr.strip()}"]
    return problems + wrong_rows(workload, output)


if __name__ == "__main__":
    sys.exit(main())
