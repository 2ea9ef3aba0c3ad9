"""What KEDA would do during a real job: it asks a real keeper at the address in the chart.

Only the host of that address is another, and seconds of KEDA's clock pass at once; every look
is a question over HTTP, to a keeper that reads a real Redis.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.local.processes import start_dependent, stop
from tests.chart.keda import Autoscaler, Scaled, ask, read_scaled
from tests.support.chart import find, render
from tests.support.processes import Fleet, fleet_at, running_worker, wait_until
from tests.support.redis_servers import HOST, RedisServer, free_port, running_redis

MODEL = "random:esm2_t6_8M_UR50D"

#: Batches of the job, a record each: more than the most workers are for.
BATCHES = 300

#: Seconds that a keeper may take to answer again after a fault, and a worker for the job.
BACK_SECONDS, JOB_SECONDS = 60.0, 240.0

#: Seconds of KEDA's clock between two turns.
TURN = 5.0


@pytest.fixture(scope="module")
def scaled() -> Scaled:
    """The ScaledObject of a pool of workers on the CPU."""
    pool = {"name": "small", "model": MODEL, "gpu": {"count": 0}, "batchesPerReplica": 60}
    return read_scaled(find(render({"pools": [pool]}), "ScaledObject", "small"))


@dataclass
class Running:
    """A Redis and a keeper, the autoscaler that asks it, and the time on its clock."""

    redis: RedisServer
    fleet: Fleet
    folder: Path
    scaled: Scaled
    port: int = field(default_factory=free_port)
    now: float = 0.0

    def __post_init__(self) -> None:
        address = urlsplit(self.scaled.url)
        self.url = address._replace(netloc=f"{HOST}:{self.port}").geturl()
        self.autoscaler = Autoscaler(self.scaled, self.look)

    def look(self) -> float | None:
        return ask(self.url, self.scaled.value_location)

    def keeper(self, stack: ExitStack) -> "subprocess.Popen[bytes]":
        """Run a keeper, and wait until it knows the demand."""
        command = [sys.executable, "-m", "producer.cli", "keeper", f"--metrics={HOST}:{self.port}"]
        with (self.folder / "keeper.log").open("ab") as log:
            process = start_dependent(command, env=self.fleet.environment, output=log)
        stack.callback(stop, process, 20)
        wait_until(lambda: self.look() is not None, BACK_SECONDS)
        return process

    def kill(self, keeper: "subprocess.Popen[bytes]") -> None:
        keeper.kill()
        keeper.wait()
        assert self.look() is None

    def after(self, seconds: float) -> list[int]:
        """Let KEDA's clock go on; return how many workers it wanted at every turn."""
        end, found = self.now + seconds, []
        while self.now < end:
            self.now += TURN
            found.append(self.autoscaler.turn(self.now))
        return found

    def submit(self) -> str:
        draw = random.Random(1)
        proteins = ("".join(draw.choices("LAGVSERTIDPKQNFYMHWC", k=200)) for _ in range(BATCHES))
        fasta = self.folder / "input.fasta"
        fasta.write_text("".join(f">p{row}\n{one}\n" for row, one in enumerate(proteins)))
        done = self.fleet.producer("submit", fasta, "--model", MODEL, "--batch-tokens=210")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def left(self, job: str) -> int:
        progress = self.fleet.ledger.jobs.progress(job)
        assert progress is not None
        return progress.batches - progress.batches_done

    def work(self, job: str, until: int) -> None:
        """Run a worker until no more batches are left than this."""
        with running_worker(MODEL, self.folder / "worker.log", self.fleet.environment):
            wait_until(lambda: self.left(job) <= until, JOB_SECONDS)


@pytest.fixture
def running(tmp_path: Path, scaled: Scaled) -> Iterator[Running]:
    with running_redis(tmp_path / "redis") as redis:
        yield Running(redis, fleet_at(redis.url, f"file://{tmp_path}/store"), tmp_path, scaled)


def needed(scaled: Scaled, batches: float) -> int:
    """Return the workers that the documentation promises for so many batches."""
    return min(-(-int(batches) // int(scaled.hpa.target)), scaled.hpa.most)


@pytest.mark.timeout(600)
def test_workers_follow_a_job_while_keepers_come_and_go(running, scaled):
    with ExitStack() as stack:
        job = running.submit()  # which makes the store
        keeper = running.keeper(stack)

        # Queued: one worker with the first look, the others with the HorizontalPodAutoscaler's.
        assert running.look() == BATCHES
        wants = running.after(60)
        assert wants[0] >= 1
        assert wants[-1] == needed(scaled, BATCHES) == scaled.hpa.most

        # Running: fewer batches are left, and fewer workers wanted when the window is over.
        running.work(job, until=150)
        wait_until(lambda: running.look() == running.left(job), BACK_SECONDS)
        fewer = needed(scaled, running.left(job))
        assert 1 <= fewer < scaled.hpa.most
        assert set(running.after(scaled.hpa.down.window - 30)) == {scaled.hpa.most}
        assert running.after(60)[-1] == fewer

        # No keeper: what is stays, however long it lasts.
        running.kill(keeper)
        assert set(running.after(3600)) == {fewer}
        running.keeper(stack)
        assert set(running.after(3600)) == {fewer}


@pytest.mark.timeout(600)
def test_workers_stay_while_redis_is_away_and_end_with_the_job(running, scaled):
    with ExitStack() as stack:
        job = running.submit()
        running.keeper(stack)
        running.after(60)
        running.redis.kill()
        wait_until(lambda: running.look() is None, BACK_SECONDS)
        assert set(running.after(3600)) == {scaled.hpa.most}
        running.redis.start()
        wait_until(lambda: running.look() == BATCHES, BACK_SECONDS)

        # Emptied: the keeper restores the job from the store, and says no number before it has.
        seen: list[float | None] = []
        with running.redis.client as client:
            client.flushall()
        wait_until(
            lambda: seen.append(running.look()) or seen[-2:] == [None, BATCHES], BACK_SECONDS
        )
        assert set(seen) == {None, BATCHES}
        assert set(running.after(60)) == {scaled.hpa.most}

        # Drained: all end after the cooldown, and not before.
        running.work(job, until=0)
        wait_until(lambda: running.look() == 0, BACK_SECONDS)
        assert 0 not in running.after(scaled.cooldown - 30)
        assert running.after(60 + scaled.polling)[-1] == 0
        assert set(running.after(600)) == {0}


def test_an_idle_pool_gets_a_worker_only_if_keepers_stay_away(running, scaled):
    """The price of never ending workers by mistake: without a keeper, an idle pool costs one."""
    assert scaled.fallback is not None
    with ExitStack() as stack:
        job = running.submit()
        keeper = running.keeper(stack)
        assert running.fleet.producer("cancel", job).returncode == 0
        wait_until(lambda: running.look() == 0, BACK_SECONDS)
        assert set(running.after(600)) == {0}
        running.kill(keeper)
        assert set(running.after(scaled.polling * scaled.fallback.failures)) == {0}
        assert running.after(2 * scaled.polling)[-1] == 1
        running.keeper(stack)
        assert running.after(scaled.cooldown + 2 * scaled.polling)[-1] == 0
