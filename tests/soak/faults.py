"""The faults of a soak test, and how each is undone."""

import json
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import psutil

from common.wire.queues import KEY_PREFIX
from tests.soak.fleet import Service, SoakFleet
from tests.soak.recovery import Recoveries
from tests.soak.schedule import Fault, Later
from tests.support.messages import with_body, with_values

#: Largest size of a file on a full disk, which is less than any shard's, and seconds until the disk
#: has space again.
FULL_AT_BYTES, FULL_SECONDS = 512, 10.0

#: Largest number of times that Redis is emptied in a run.
MOST_FLUSHES = 2

#: Number of times that a kind of fault occurs in each round, if not once.
WORKER_KILLED = "worker process killed"
TIMES = {WORKER_KILLED: 3}

#: Seconds until everything has arrived that a process sent before it was stopped, and seconds for
#: which it is continued if it had no batch.
ARRIVAL_SECONDS, AGAIN_SECONDS = 0.1, 0.05

#: Number of times that a process is stopped to find it with a batch.
STOPS = 10


@dataclass(frozen=True)
class Victim:
    """A worker whose process is stopped while it has batches."""

    worker: Service
    child: psutil.Process
    held: Mapping[str, str]  # its batches, as the ledger names them, with their owners


@dataclass
class Faults:
    """All kinds of faults, a method each, which returns False if it is impossible at the moment."""

    fleet: SoakFleet
    recoveries: Recoveries
    later: Later
    draw: random.Random
    queue: str
    submit: Sequence[str]  # the command that submitted the job
    #: Whether Redis is killed, frozen, or unreachable for the fleet.
    redis_away: bool = False
    #: Whether Redis is killed or frozen, so that this process cannot reach it either.
    redis_stopped: bool = False
    flushes: int = 0
    strange_messages: int = 0
    submits: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, Fault]:
        return {
            WORKER_KILLED: self.kill_child,
            "supervisor killed": self.kill_supervisor,
            "worker stopped by SIGTERM": self.terminate_worker,
            "worker process stopped 35-45 s": self.stop_child,
            "worker's disk full 10 s": self.fill_disk,
            "acting keeper killed": self.kill_keeper,
            "Redis killed": self.kill_redis,
            "Redis frozen 5-20 s": self.freeze_redis,
            "connections cut": self.cut_connections,
            "network silent 10-20 s": self.silence_network,
            "CLIENT KILL": self.kill_clients,
            "strange messages": self.push_strange_messages,
            "Redis emptied": self.flush_redis,
            "submitted again, twice at once": self.submit_again,
        }

    # --- workers ------------------------------------------------------------------------------

    def kill_child(self, fault: str) -> bool:
        victim = self._stop_one_at_work()
        if victim is None:
            return False
        victim.child.kill()
        self.recoveries.expect_elsewhere(fault, victim.held)
        return True

    def kill_supervisor(self, fault: str) -> bool:
        """Kill a supervisor: the kernel sends SIGTERM to its process."""
        return self._end_worker(fault, signal.SIGKILL)

    def terminate_worker(self, fault: str) -> bool:
        return self._end_worker(fault, signal.SIGTERM)

    def _end_worker(self, fault: str, number: signal.Signals) -> bool:
        victim = self._stop_one_at_work()
        if victim is None:
            return False
        victim.worker.send(number)
        victim.child.resume()
        self.recoveries.expect_elsewhere(fault, victim.held)
        return True

    def stop_child(self, fault: str) -> bool:
        victim = self._stop_one_at_work()
        if victim is None:
            return False
        self.recoveries.expect_elsewhere(fault, victim.held)
        self._lasting(victim, self.draw.uniform(35, 45), victim.child.resume)
        return True

    def fill_disk(self, _fault: str) -> bool:
        """Limit the size of a worker's files: a write fails with EFBIG, as with ENOSPC on a full
        disk.
        """
        victim = self._stop_one_at_work()
        if victim is None:
            return False
        child = victim.child
        soft, hard = child.rlimit(resource.RLIMIT_FSIZE)
        child.rlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, hard))
        child.resume()
        undo = partial(child.rlimit, resource.RLIMIT_FSIZE, (soft, hard))
        self._lasting(victim, FULL_SECONDS, undo)
        return True

    def _stop_one_at_work(self) -> "Victim | None":
        """Stop the process of a worker that has batches and no other fault; None: no such."""
        for worker in self.draw.sample(self.fleet.workers, len(self.fleet.workers)):
            child = None if worker.busy else worker.child
            if child is None or not self.recoveries.held_by(child.pid):
                continue
            for _ in range(STOPS):
                child.suspend()
                time.sleep(ARRIVAL_SECONDS)
                held = self.recoveries.held_by(child.pid)
                if held:
                    return Victim(worker, child, held)
                child.resume()
                time.sleep(AGAIN_SECONDS)
        return None

    def _lasting(self, victim: "Victim", seconds: float, undo: Callable[[], object]) -> None:
        victim.worker.busy = True

        def end() -> None:
            victim.worker.busy = False
            with suppress(psutil.NoSuchProcess):
                undo()

        self.later.after(seconds, end)

    # --- the keeper ---------------------------------------------------------------------------

    def kill_keeper(self, fault: str) -> bool:
        for keeper in self.fleet.keepers:
            if keeper.service.is_up and keeper.is_acting():
                keeper.service.send(signal.SIGKILL)
                self.recoveries.expect_keeper(fault, time.monotonic())
                return True
        return False

    # --- Redis and the network ----------------------------------------------------------------

    def kill_redis(self, fault: str) -> bool:
        self.fleet.redis.kill()
        self._redis_back(fault, self.draw.uniform(1, 4), self.fleet.redis.start, stopped=True)
        return True

    def freeze_redis(self, fault: str) -> bool:
        self.fleet.redis.freeze()
        self._redis_back(fault, self.draw.uniform(5, 20), self.fleet.redis.thaw, stopped=True)
        return True

    def silence_network(self, fault: str) -> bool:
        self.fleet.network.blackhole()
        self._redis_back(fault, self.draw.uniform(10, 20), self.fleet.network.heal, stopped=False)
        return True

    def _redis_back(
        self, fault: str, seconds: float, undo: Callable[[], object], *, stopped: bool
    ) -> None:
        begun = time.monotonic()
        self.redis_away, self.redis_stopped = True, stopped

        def end() -> None:
            undo()
            self.redis_away = self.redis_stopped = False
            self.recoveries.expect_work(fault, begun)

        self.later.after(seconds, end)

    def cut_connections(self, fault: str) -> bool:
        self.fleet.network.cut()
        self.recoveries.expect_work(fault, time.monotonic())
        return True

    def kill_clients(self, fault: str) -> bool:
        self.fleet.ledger.redis.client_kill_filter(_type="normal", skipme=True)
        self.recoveries.expect_work(fault, time.monotonic())
        return True

    def flush_redis(self, fault: str) -> bool:
        if self.flushes < MOST_FLUSHES:
            self.flushes += 1
            self.fleet.ledger.redis.flushall()
            self.recoveries.expect_ledger(fault)
            self.recoveries.expect_work(fault, time.monotonic())
            return True
        return False

    # --- messages and jobs --------------------------------------------------------------------

    def push_strange_messages(self, _fault: str) -> bool:
        redis, key = self.fleet.ledger.redis, f"{KEY_PREFIX}{self.queue}"
        ours = redis.lindex(key, 0)
        if not isinstance(ours, str):
            return False
        for message in strange_messages(ours.encode()):
            redis.rpush(key, message)  # to be taken next
            self.strange_messages += 1
        return True

    def submit_again(self, _fault: str) -> bool:
        for number in range(2):
            log = self.fleet.logs / f"submit-{len(self.submits)}-{number}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    self.submit,
                    env=self.fleet.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            self.submits.append(process)
        return True


def strange_messages(ours: bytes) -> list[bytes]:
    """Return messages that no worker can process; some of them are nearly valid."""
    return [
        b"garbage",
        b'{"body": "\xff"}',
        json.dumps(["a", "list"]).encode(),
        with_values(ours, {("headers", "task"): "tasks.add"}),
        with_values(ours, {("body",): "***"}),
        with_values(ours, {("content-type",): "application/x-python-serialize"}),
        with_body(ours, [[], {"job": "none"}, {}]),
    ]
