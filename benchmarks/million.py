"""A job of a million batches through the queue: its speed, and the memory that it takes in Redis.

    python -m benchmarks.million [--batches 1000000] [--workers 4] [--seconds 480]

Redis, the keeper, and the worker processes with Celery, claims and results are real. Engine and
store are stubs that cost nothing: there is no model, no input and no shard.
"""

import argparse
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path

from redis import Redis

from benchmarks.redisload import Load, Meter, machine
from benchmarks.stores import OneRecordStore
from common.job.manifest import Manifest
from common.ledger.keys import job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.local.embedded_redis import redis_server
from common.local.processes import end_of_log, end_with_parent
from common.model_source import ModelSource
from common.wire.celery_app import make_celery
from common.wire.queues import Queues
from common.wire.redis_client import connect
from common.wire.signing import MessageKeys
from producer.scheduling.keeper import STEP_SECONDS, Keeper
from producer.scheduling.opening import job_queue
from producer.scheduling.publisher import Publisher
from tests.support.jobs import manifest_of

#: Largest number of waiting messages.
HIGH_WATER = 20_000

#: Goals: messages/s of one producer, batches/s of four workers, bytes of Redis's memory.
PUBLISHED_PER_SECOND, DONE_PER_SECOND, REDIS_BYTES = 5_000, 2_500, 150e6

#: Seconds between two looks at the job and at its processes.
LOOK_SECONDS = 0.5

#: The steady part of the job, as shares of its batches at its beginning and end.
STEADY = 0.2, 0.8

MODEL = ModelSource.parse("random:esm2_t33_650M_UR50D")

spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Look:
    """The state of the job at one moment, and the CPU seconds that its processes have used."""

    at: float
    done: int
    queued: int
    workers_cpu: float
    keeper_cpu: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The results of a measurement."""

    batches: int
    done: int
    published_per_second: float
    done_per_second: float
    most_queued: int
    redis_peak: int  # bytes above the empty one's
    redis_kept: int  # bytes for the finished job
    redis: Load  # for a batch
    worker_cpu: float  # microseconds for a batch
    worker_peak: int  # bytes, of the largest
    keeper_cpu: float  # share of a core
    keeper_peak: int  # bytes

    @property
    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield the name, the value and the goal of each figure."""
        yield "batches done", f"{self.done:,} of {self.batches:,}", "all"
        published = f"at least {PUBLISHED_PER_SECOND:,}"
        yield (
            "messages published by one process, 1/s",
            f"{self.published_per_second:,.0f}",
            published,
        )
        done = f"at least {DONE_PER_SECOND:,}"
        yield "batches completed, 1/s", f"{self.done_per_second:,.0f}", done
        yield "messages in the queue, most", f"{self.most_queued:,}", f"at most {HIGH_WATER:,}"
        goal = f"at most {REDIS_BYTES / 1e6:,.0f}"
        yield "Redis memory above empty, peak, MB", f"{self.redis_peak / 1e6:,.1f}", goal
        yield "Redis memory of the finished job, MB", f"{self.redis_kept / 1e6:,.1f}", ""
        yield "Redis's thread for a batch, us", f"{self.redis.cpu:,.0f}", ""
        yield "Redis's thread busy", f"{self.redis.cpu * self.done_per_second / 1e6:.0%}", ""
        yield "worker processes' CPU for a batch, us", f"{self.worker_cpu:,.0f}", ""
        yield "worker process, peak, MB", f"{self.worker_peak / 1e6:,.0f}", ""
        yield "keeper, share of a core", f"{self.keeper_cpu:.1%}", ""
        yield "keeper, peak, MB", f"{self.keeper_peak / 1e6:,.0f}", ""


# --- the processes --------------------------------------------------------------------------------


class TimedPublisher(Publisher):
    """A publisher that records how many messages it published, and in how many seconds."""

    notes: "SynchronizedArray[float]"

    def _publish(self, manifest: Manifest, progress: Progress, portion: int) -> int:
        started = time.perf_counter()
        count = super()._publish(manifest, progress, portion)
        self.notes[0] += count
        self.notes[1] += time.perf_counter() - started
        return count


def run_keeper(url: str, batches: int, folder: Path, notes: "SynchronizedArray[float]") -> None:
    """Do the work of ``producer keeper``, with a store that has only the job's manifest."""
    end_with_parent()
    ledger = Ledger(connect(url))
    manifest = manifest_of([1] * batches, model=MODEL.text)
    publisher = TimedPublisher(ledger, make_celery(url, []), HIGH_WATER)
    publisher.notes = notes
    keeper = Keeper(OneRecordStore(folder, manifest), ledger, publisher)
    while True:
        keeper.step()
        time.sleep(STEP_SECONDS / 10)


def run_worker(url: str, batches: int, number: int, log: Path) -> None:
    """Do the work of ``workers.process.worker`` after the model is loaded, with stubs."""
    end_with_parent()
    # A spawned process inherits its parent's output, but a worker logs to a file.
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # These import PyTorch, and the publisher is to be measured without it.
    from benchmarks.stubs import WORKER, SameAnswerEngine, stub_runner
    from workers.batches import runner as runners
    from workers.transport.consumer import consume
    from workers.transport.guard import Guard, install_guard

    runners.write_shard = lambda *_, **__: None
    worker = WORKER.model_copy(update={"name": f"cpu-{os.getpid()}@{number}"})
    ledger, manifest = Ledger(connect(url)), manifest_of([1] * batches, model=MODEL.text)
    store = OneRecordStore(log.parent / "store", manifest)
    runner = stub_runner(ledger, store, SameAnswerEngine(), worker)
    runner.renewer.start()
    app = make_celery(url, list(worker.queues))
    install_guard(app, Guard(ledger, MessageKeys(), worker.name))
    try:
        name, stop = f"million-{number}", runner.stopping.set
        consume(app, worker.queues, name, run=runner.run, on_stop=stop)
    finally:
        runner.renewer.stop()


@contextmanager
def running(*processes: BaseProcess) -> Iterator[None]:
    """Run the processes until the block ends."""
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(20)
            process.kill()


def cpu_seconds(process: BaseProcess) -> float:
    """Return the user and system time of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(process: BaseProcess) -> int:
    """Return the peak memory of a process in bytes; 0 if it has ended."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.exists() else None
    return 1024 * int(found[1]) if found else 0


# --- measuring ------------------------------------------------------------------------------------


def measure(batches: int, workers: int, seconds: float) -> Figures:
    """Take a job of ``batches`` through ``workers``, for at most ``seconds``."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virnucpro-")))
        url = f"unix://{folder}/redis.sock?db=0"
        stack.enter_context(redis_server(folder / "redis.sock"))
        redis = stack.enter_context(connect(url))
        print(machine(redis), flush=True)
        manifest = manifest_of([1] * batches, model=MODEL.text)
        ledger, empty = Ledger(redis), redis.info("memory")["used_memory"]
        ledger.jobs.create(manifest, job_queue(manifest))
        notes = spawn.Array("d", 2)
        keeper = spawn.Process(target=run_keeper, args=(url, batches, folder / "store", notes))
        logs = [folder / f"worker-{number}.log" for number in range(workers)]
        fleet = [
            spawn.Process(target=run_worker, args=(url, batches, number, log))
            for number, log in enumerate(logs)
        ]
        with running(keeper, *fleet):
            looks, redis_load = watch(redis, manifest, keeper, fleet, seconds)
            worker_peak = max(map(peak_bytes, fleet))
            keeper_peak = peak_bytes(keeper)
            published = notes[0] / max(notes[1], 1e-9)
        if looks[-1].done < batches:
            print(*(end_of_log(log) for log in logs if log.exists()), sep="\n\n")
        time.sleep(1)  # until the processes' connections are closed
        used = redis.info("memory")
        first, last = steady(looks, batches)
        done = max(1, last.done - first.done)
        return Figures(
            batches=batches,
            done=looks[-1].done,
            published_per_second=published,
            done_per_second=done / (last.at - first.at),
            most_queued=max(look.queued for look in looks),
            redis_peak=used["used_memory_peak"] - empty,
            redis_kept=used["used_memory"] - empty,
            redis=redis_load,
            worker_cpu=1e6 * (last.workers_cpu - first.workers_cpu) / done,
            worker_peak=worker_peak,
            keeper_cpu=(last.keeper_cpu - first.keeper_cpu) / (last.at - first.at),
            keeper_peak=keeper_peak,
        )


def watch(
    redis: Redis,
    manifest: Manifest,
    keeper: BaseProcess,
    fleet: Sequence[BaseProcess],
    seconds: float,
) -> tuple[list[Look], Load]:
    """Watch the job until it is done or the time is up; return looks, and the load per batch."""
    ledger, deadline = Ledger(redis), time.monotonic() + seconds
    looks: list[Look] = []
    meter, load = None, Load(0.0)
    begin, end = (share * manifest.batches for share in STEADY)
    while True:
        look = Look(
            at=time.monotonic(),
            done=int(redis.hget(job_key(manifest.job), "batches_done") or 0),
            queued=Queues(ledger.redis).length(job_queue(manifest)),
            workers_cpu=sum(map(cpu_seconds, fleet)),
            keeper_cpu=cpu_seconds(keeper),
        )
        looks.append(look)
        if meter is None and look.done >= begin:
            meter, before = Meter(redis), look.done
        if meter is not None and before < look.done <= end:
            load = meter.load(look.done - before)
        if len(looks) % 20 == 0:
            print(f"{look.done:,} done, {look.queued:,} queued", flush=True)
        failed = keeper.exitcode or any(worker.exitcode for worker in fleet)
        if look.done == manifest.batches or look.at > deadline or failed:
            return looks, load
        time.sleep(LOOK_SECONDS)


def steady(looks: Sequence[Look], batches: int) -> tuple[Look, Look]:
    """Return the first and the last look at the steady part of a job."""
    begin, end = (share * batches for share in STEADY)
    middle = [look for look in looks if begin <= look.done <= end]
    return (middle[0], middle[-1]) if len(middle) > 1 else (looks[0], looks[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=480.0, help="time limit")
    options = parser.parse_args()
    figures = measure(options.batches, options.workers, options.seconds)
    print(*figures.redis.lines(), sep="\n")
    for row in figures.rows:
        print("{:42} {:>22}  {}".format(*row))
    return 0 if figures.done == figures.batches else 1


if __name__ == "__main__":
    sys.exit(main())
