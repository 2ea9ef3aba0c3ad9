"""``producer keeper``: jobs go on despite a low high-water mark, an emptied Redis and kills."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest

from common.ledger.progress import JobState
from common.wire.queues import Queues
from tests.support.http import answer_at, free_address, metrics_at
from tests.support.processes import (
    Fleet,
    Running,
    clean_environment,
    start_command,
    wait_until,
)
from tests.support.results import load

MANY = "--batch-tokens=2000"

MARK = 5


@pytest.fixture
def low_fleet(fleet: Fleet) -> Fleet:
    """A fleet with a low high-water mark."""
    environment = {**fleet.environment, "VIRNUCPRO_HIGH_WATER": str(MARK)}
    return replace(fleet, environment=environment)


@contextmanager
def running_keeper(fleet: Fleet, log: Path, *options: str, **more: str) -> Iterator[Running]:
    """Run a keeper that acts; it is killed at the end if it still runs."""
    with log.open("wb") as output:
        environment = {**fleet.environment, **more}
        process = start_command(
            "producer.cli", "keeper", *options, environment=environment, output=output
        )
    try:
        wait_until(lambda: "Keeping the jobs of" in log.read_text(), 60)
        yield process
    finally:
        process.kill()
        process.wait()


def finished(fleet: Fleet, job: str) -> bool:
    progress = fleet.ledger.jobs.progress(job)
    return progress is not None and progress.finished


def shards(store: Path) -> dict[Path, tuple[int, int]]:
    """Return the inode and time of each shard, which change if it is written again."""
    status = {path: path.stat() for path in sorted(store.glob("*/output/*.h5"))}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in status.items()}


def test_a_job_that_is_larger_than_the_mark_is_fed_watched_and_measured(
    low_fleet, tiny, disprot, tmp_path
):
    address = free_address()
    with running_keeper(low_fleet, tmp_path / "keeper.log", VIRNUCPRO_METRICS=address):
        submitted = low_fleet.producer("submit", disprot, "--model", tiny, "--batch-tokens=20000")
        assert submitted.returncode == 0, submitted.stderr
        job = submitted.stdout.strip()
        queue, batches = (p := low_fleet.ledger.jobs.progress(job)).queue, p.batches
        assert batches > 3 * MARK
        assert Queues(low_fleet.ledger.redis).length(queue) == MARK
        wait_until(lambda: answer_at(address, f"demand?pool={queue}").get("batches") == batches, 10)
        with low_fleet.workers(tiny, tmp_path):
            lengths = []

            def is_finished() -> bool:
                lengths.append(Queues(low_fleet.ledger.redis).length(queue))
                return finished(low_fleet, job)

            wait_until(is_finished, 200)
            found = metrics_at(address)
        assert max(lengths) <= MARK
        wait_until(lambda: (tmp_path / "store" / job / "closed.json").exists(), 10)
        by_model = urlencode({"model": tiny, "precision": "fp16"})
        assert answer_at(address, f"demand?{by_model}") == {"pool": queue, "batches": 0}
        assert answer_at(address, "healthz")["acting"]
    assert found["virnucpro_redis_up"] == found["virnucpro_keeper_acting"] == 1
    assert found['virnucpro_jobs{state="finished"}'] == 1
    assert found[f'virnucpro_job_rows_done{{job_name="{job}"}}'] == 1162
    assert found["virnucpro_keeper_step_seconds_count"] > 0
    assert low_fleet.ledger.jobs.progress(job).rows_done == 1162


def test_a_redis_that_is_wiped_delays_a_job_and_nothing_is_computed_again(
    fleet, tiny, some_disprot, tmp_path
):
    store = tmp_path / "store"
    with running_keeper(fleet, tmp_path / "keeper.log", "--metrics", "") as keeper:
        job = fleet.producer("submit", some_disprot, "--model", tiny, MANY).stdout.strip()
        with fleet.workers(tiny, tmp_path) as (log,):
            wait_until(lambda: len(shards(store)) > 5, 60)
            before = shards(store)
            fleet.ledger.redis.flushall()
            wait_until(lambda: finished(fleet, job), 200)
        assert keeper.poll() is None
    computed = Counter(re.findall(rf"Batch (\d+) of {job}: \d", log.read_text()))
    assert {computed[str(int(path.name.partition(".")[0]))] for path in before} == {1}
    assert fleet.ledger.jobs.progress(job).rows_done == 400
    after = shards(store)
    assert {path: after[path] for path in before} == before
    assert f"Redis did not know job {job}" in (tmp_path / "keeper.log").read_text()
    fetched = fleet.producer("fetch", job, "-o", tmp_path / "e.h5")
    assert fetched.returncode == 0, fetched.stderr
    assert load(tmp_path / "e.h5")["rows"].tolist() == list(range(400))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl_c"])
def test_a_stop_ends_a_keeper_at_once_and_the_next_one_acts(fleet, tmp_path, number):
    address = free_address()
    with running_keeper(fleet, tmp_path / "one.log", "--metrics", "") as first:
        wait_until(lambda: fleet.ledger.redis.keys("virnucpro:keeper:*"), 30)
        with running_keeper(fleet, tmp_path / "two.log", "--metrics", address):
            assert metrics_at(address)["virnucpro_keeper_acting"] == 0
            first.send_signal(number)
            assert first.wait(5) == 0
            wait_until(lambda: metrics_at(address)["virnucpro_keeper_acting"] == 1, 20)
    assert "Traceback" not in (tmp_path / "one.log").read_text()


def test_a_keeper_waits_for_a_redis_that_is_away(fleet, tmp_path):
    address = free_address()
    log = tmp_path / "keeper.log"
    with running_keeper(fleet, log, "--metrics", address) as keeper:
        assert metrics_at(address)["virnucpro_redis_up"] == 1
        fleet.ledger.redis.shutdown(nosave=True)
        wait_until(lambda: "Waiting: " in log.read_text(), 60)
        assert metrics_at(address)["virnucpro_redis_up"] == 0
        keeper.terminate()
        assert keeper.wait(20) == 0
    assert "Traceback" not in log.read_text()


def test_a_local_run_keeps_its_own_job_going_when_its_worker_is_killed(
    tiny, some_disprot, tmp_path
):
    command = [
        sys.executable,
        "-m",
        "producer.cli",
        "submit",
        str(some_disprot),
        "--local",
        MANY,
    ]
    process = subprocess.Popen(
        [*command, f"--model={tiny}", "-o", "e.h5"],
        cwd=tmp_path,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(tmp_path.glob("e.h5.parts/store/*/output/*.h5")), 90)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, message = process.communicate(timeout=200)
    assert process.returncode == 0, message
    assert "requeued" in message
    assert load(tmp_path / "e.h5")["rows"].tolist() == list(range(400))


def worker_of(producer: int) -> int:
    """The process that computes: a child of the supervisor, which is a child of the producer."""
    (supervisor,) = [
        child
        for child in psutil.Process(producer).children()
        if "workers.cli" in " ".join(child.cmdline())
    ]
    return max(supervisor.children(), key=lambda child: child.memory_info().rss).pid


def test_a_cancelled_job_does_not_come_back_with_an_empty_redis(fleet, tiny, examples, tmp_path):
    with running_keeper(fleet, tmp_path / "keeper.log", "--metrics", ""):
        job = fleet.producer("submit", examples, "--model", tiny).stdout.strip()
        other = fleet.producer("submit", examples, "--model", tiny, "--new").stdout.strip()
        assert fleet.producer("cancel", job).returncode == 0
        wait_until(lambda: (tmp_path / "store" / job / "closed.json").exists(), 20)
        fleet.ledger.redis.flushall()
        wait_until(lambda: fleet.ledger.jobs.names(), 20)
        assert fleet.ledger.jobs.names() == [other]
        assert fleet.ledger.jobs.progress(other).state is JobState.OPEN
