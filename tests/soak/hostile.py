"""The faults of a soak test that come from outside: the store, clocks, other programs and versions.

Each is undone before the job has to be finished, but for flipped bits in shards: ``settle`` finds
and mends those as an operator does.
"""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from common.job.layout import manifest_key, output_prefix
from common.job.manifest import read_manifest
from common.ledger.keys import job_key
from common.ledger.locks import STAGING_SECONDS
from common.store import FileStore
from common.wire.celery_app import make_celery
from common.wire.queues import KEY_PREFIX
from tests.soak.fleet import SoakFleet
from tests.soak.recovery import Recoveries
from tests.soak.schedule import Fault, Later
from tests.soak.workload import Workload

#: Seconds for which the store is away, a bit of an input is wrong, a clock is wrong, strange jobs
#: are there, and processes of the version before work in the fleet.
UNMOUNTED_SECONDS, FLIPPED_SECONDS, CLOCK_SECONDS, STRANGE_SECONDS = 8.0, 15.0, 25.0, 20.0
PREVIOUS_SECONDS, HAND_OVER_SECONDS = 40.0, 12.0

#: The steps of a clock, in seconds.
CLOCK_STEPS = (-3600, -300, 300, 3600)

#: Batches of a job that is submitted by a producer that freezes, and most of such jobs.
PART_BATCHES, MOST_PARTS = 200, 3

#: Seconds that a submit has until its first input object is there.
SUBMIT_SECONDS = 30.0

#: Most shards with a wrong bit.
MOST_FLIPPED = 12

#: Orders of Celery's remote control, with their arguments. No worker may obey.
ORDERS: dict[str, dict[str, object]] = {
    "shutdown": {},
    "pool_restart": {},
    "pool_shrink": {"n": 1},
    "autoscale": {"max": 0, "min": 0},
    "rate_limit": {"task_name": "virnucpro.embed", "rate_limit": "1/h"},
    "time_limit": {"task_name": "virnucpro.embed", "soft": 0.001, "hard": 0.001},
    "disable_events": {},
    "election": {"id": "1", "topic": "t", "action": "a"},
}


@dataclass
class HostileFaults:
    """All kinds of faults from outside, a method each, which returns False if it is impossible."""

    fleet: SoakFleet
    recoveries: Recoveries
    later: Later
    draw: random.Random
    queue: str
    job: str
    workload: Workload
    submit: Callable[[Path], Sequence[str]]  # the command that submits a file
    #: Whether no other fault may begin.
    quiet: bool = False
    problems: list[str] = field(default_factory=list)
    #: The shards with a wrong bit, with their wrong contents.
    flipped: dict[Path, bytes] = field(default_factory=dict)
    parts: list[Workload] = field(default_factory=list)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    strange_jobs: int = 0

    @property
    def kinds(self) -> dict[str, Fault]:
        return {
            "store not mounted 8 s": self.unmount,
            "a bit of an input flipped 15 s": self.flip_input,
            "bits of a shard flipped": self.flip_shard,
            "orders by remote control": self.give_orders,
            "strange jobs 20 s": self.add_strange_jobs,
            "a submit frozen, then woken": self.freeze_submit,
            "Redis's clock stepped, 25 s": self.step_clock,
            "version before in the fleet 40 s": self.mix_versions,
        }

    # --- the store ----------------------------------------------------------------------------

    def unmount(self, fault: str) -> bool:
        """Take the store away. What is left is nothing, or an empty mount point."""
        begun, place, away = time.monotonic(), self.fleet.store, self.fleet.mounted_elsewhere
        place.rename(away)
        if self.draw.random() < 0.5:
            place.mkdir()
        self.quiet = True

        def mount() -> None:
            if place.exists():
                found = sorted(path.name for path in place.iterdir())
                if found:
                    self.problems.append(f"written where no store was mounted: {found}")
                    place.rename(place.with_name(f"{place.name}.wrong-{time.time():.0f}"))
                else:
                    place.rmdir()
            away.rename(place)
            self.quiet = False
            self.recoveries.expect_work(fault, begun)

        self.later.after(UNMOUNTED_SECONDS, mount)
        return True

    def flip_input(self, _fault: str) -> bool:
        """Flip a bit of a residue in the input of a batch that is not done yet."""
        manifest = read_manifest(FileStore(self.fleet.store), self.job)
        done = self.fleet.ledger.batches.done(manifest, manifest.rung)
        waiting = np.flatnonzero(~done)[:200].tolist()
        if not waiting:
            return False
        key = f"{self.draw.choice(waiting):07d}.fasta"
        [path] = (self.fleet.store / self.job / "input").rglob(key)
        right = path.read_bytes()
        path.write_bytes(right.replace(b"L", b"D", 1))  # they are one bit apart
        self.later.after(FLIPPED_SECONDS, partial(path.write_bytes, right))
        return True

    def flip_shard(self, _fault: str) -> bool:
        """Flip a bit in each of three shards."""
        shards = sorted((self.fleet.store / output_prefix(self.job)).glob("[0-9]*.h5"))
        whole = [shard for shard in shards if shard not in self.flipped]
        if len(whole) < 3 or len(self.flipped) >= MOST_FLIPPED:
            return False
        for shard in self.draw.sample(whole, 3):
            data = bytearray(shard.read_bytes())
            bit = self.draw.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            shard.write_bytes(data)
            self.flipped[shard] = bytes(data)
        return True

    def still_flipped(self) -> list[Path]:
        """Return the shards with a wrong bit that no worker has replaced."""
        return [shard for shard, data in self.flipped.items() if shard.read_bytes() == data]

    # --- other programs -----------------------------------------------------------------------

    def give_orders(self, _fault: str) -> bool:
        """Send orders by remote control, and garbage on every channel that workers read."""
        redis = self.fleet.ledger.redis
        redis.publish(f"{KEY_PREFIX}/0.celery.pidbox", "[]")
        redis.publish(f"{KEY_PREFIX}/0.celery.pidbox", b"\xff{")
        redis.hset(f"{KEY_PREFIX}unacked", "garbage", "[")
        redis.zadd(f"{KEY_PREFIX}unacked_index", {"garbage": 1, "nothing": 1})
        with make_celery(self.fleet.redis.url, [self.queue]) as app:
            for order, arguments in ORDERS.items():
                app.control.broadcast(order, arguments=arguments)
            app.control.cancel_consumer(self.queue)
        return True

    def add_strange_jobs(self, _fault: str) -> bool:
        """Add jobs to ledger and store that no version of this program made."""
        redis, store = self.fleet.ledger.redis, self.fleet.store
        self.strange_jobs += 1
        names = [f"strange{self.strange_jobs}-{n:012x}" for n in range(4)]
        manifest = json.loads((store / manifest_key(self.job)).read_text())
        manifest.pop("crc32", None)
        fields = redis.hgetall(job_key(self.job))
        changes: list[dict[str, object]] = [
            {"model": "esm9_t99_1T"},
            {"batch_records": [0], "batch_tokens": [0]},
            {"rung": "fp8"},
            {},
        ]
        for name, change in zip(names, changes, strict=True):
            text = json.dumps({**manifest, "job": name, **change})
            (store / name).mkdir()
            (store / manifest_key(name)).write_text(text)
            redis.zadd(f"{KEY_PREFIX}jobs", {name: float(fields["created"])})
            redis.hset(job_key(name), mapping={**fields, "state": "open"})
        redis.hset(job_key(names[1]), mapping={"state": "paused"})
        redis.hset(job_key(names[2]), mapping={"batches": "many"})
        redis.zadd(f"{job_key(names[3])}:leases", {"7.fp8": time.time() + 20})
        redis.hset(f"{job_key(names[3])}:results", "3.fp16", '{"version": 9}')

        def remove() -> None:
            for name in names:
                self.fleet.ledger.jobs.forget(name)
                manifest_of = store / manifest_key(name)
                manifest_of.unlink(missing_ok=True)

        self.later.after(STRANGE_SECONDS, remove)
        return True

    def freeze_submit(self, _fault: str) -> bool:
        """Freeze a producer while it stages, have another submit the same, and wake the first."""
        number = len(self.parts)
        if number >= MOST_PARTS:
            return False
        fasta = self.fleet.logs.parent / f"part{number}.fasta"
        part = self.workload.part(number * PART_BATCHES * 4, PART_BATCHES, fasta)
        frozen = self._start_submit(part, "frozen")
        deadline = time.monotonic() + SUBMIT_SECONDS
        while not any(self.fleet.store.glob(f"part{number}-*/input/*")):
            if frozen.poll() is not None or time.monotonic() > deadline:
                self.problems.append(f"a submit that was to be frozen ended: {frozen.poll()}")
                break
            time.sleep(0.001)
        frozen.send_signal(signal.SIGSTOP)
        self.parts.append(part)
        self.later.after(STAGING_SECONDS + 5, lambda: self._start_submit(part, "other"))
        self.later.after(STAGING_SECONDS + 40, partial(frozen.send_signal, signal.SIGCONT))
        return True

    def _start_submit(self, part: Workload, name: str) -> "subprocess.Popen[bytes]":
        with (self.fleet.logs / f"submit-{part.fasta.stem}-{name}.log").open("wb") as output:
            process = subprocess.Popen(
                self.submit(part.fasta),
                env=self.fleet.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.processes.append(process)
        return process

    # --- clocks and versions ------------------------------------------------------------------

    def step_clock(self, _fault: str) -> bool:
        """Set the clock of Redis ahead or back, and right again."""
        clock = self.fleet.clock
        if clock is None:
            return False
        clock.set(self.draw.choice(CLOCK_STEPS))
        self.later.after(CLOCK_SECONDS, partial(clock.set, 0))
        return True

    def mix_versions(self, _fault: str) -> bool:
        """Have a worker and a keeper of the version before work in the fleet, without faults.

        It has faults that are mended since: while it is here, no other may begin.
        """
        if not self.fleet.previous:
            return False
        self.quiet = True
        self.later.after(1, self._join_when_calm)
        return True

    def _join_when_calm(self) -> None:
        if not self.later.is_empty:
            self.later.after(1, self._join_when_calm)
            return
        for service in self.fleet.previous:
            service.start()
        self.later.after(HAND_OVER_SECONDS, self._hand_over)
        self.later.after(PREVIOUS_SECONDS, self._leave)

    def _hand_over(self) -> None:
        """Stop the keepers, which start again: meanwhile the one of the version before acts."""
        for keeper in self.fleet.keepers:
            if keeper.service.is_up:
                keeper.service.send(signal.SIGTERM)

    def _leave(self) -> None:
        self.quiet = False
        for service in self.fleet.previous:
            code = service.process and service.process.poll()
            if code is not None:
                self.problems.append(f"{service.name} ended: {code}, see {service.log}")
            elif service.is_up:
                with suppress(psutil.NoSuchProcess):
                    service.send(signal.SIGTERM)
