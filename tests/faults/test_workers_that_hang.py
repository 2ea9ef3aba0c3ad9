"""Processes that hang or freeze: they end and are replaced, and their batches are not lost."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.ledger.events import EventKind
from common.local.processes import stop
from common.wire.queues import Queues
from tests.support.processes import (
    START_SECONDS,
    Fleet,
    Running,
    is_ready,
    start_command,
    wait_until,
)
from workers.process.supervisor import GRACE_SECONDS
from workers.runtime.watchdog import EXIT_HUNG

MANY = "--batch-tokens=1500"


@pytest.fixture
def hung(tmp_path) -> Path:
    """The file that the first hanging process creates, after which no other hangs."""
    return tmp_path / "hung"


@contextmanager
def hanging_worker(fleet: Fleet, model: Path, log: Path, **more: str) -> Iterator[Running]:
    words = ["start", "--model", model, "--gpus=none"]
    environment = {**fleet.environment, "HUNG": str(log.with_name("hung")), **more}
    with log.open("wb") as output:
        worker = start_command(
            "tests.support.hanging_worker", *words, environment=environment, output=output
        )
    try:
        yield worker
    finally:
        stop(worker, 40)


def test_a_process_that_hangs_in_a_pack_ends_and_the_next_one_finishes_the_job(
    fleet, tiny, examples, tmp_path, hung
):
    log = tmp_path / "worker.log"
    job = fleet.producer("submit", examples, "--model", tiny, MANY).stdout.strip()
    with hanging_worker(fleet, tiny, log, PATIENCE="2"):
        watched = fleet.producer("watch", job)
    assert watched.returncode == 0, watched.stderr
    # Leases ran out: the attempts count.
    assert "requeued from lost workers" in watched.stderr
    said = log.read_text()
    assert "'launch' takes longer than 2 s" in said
    assert re.search(rf"^ *batch \d+ of {job} for \d+ s, launch for \d+ s:$", said, re.MULTILINE)
    assert "in hang_once" in said  # the stack
    assert f"exit code {EXIT_HUNG}" in said
    assert EventKind.LEASE_LOST in {event.event for event in fleet.ledger.events.latest(job)}
    assert fleet.ledger.jobs.progress(job).rows_done == 25


def test_a_process_that_hangs_in_the_store_ends_and_the_job_goes_on_once_the_store_answers(
    fleet, tiny, examples, tmp_path, hung
):
    hung.touch()  # no pack hangs
    log = tmp_path / "worker.log"
    job = fleet.producer("submit", examples, "--model", tiny, MANY).stdout.strip()
    (stored,) = (tmp_path / "store" / job / "input").rglob("0000000.fasta")
    content = stored.read_bytes()
    stored.unlink()
    os.mkfifo(stored)  # whoever opens it waits, as for a server that is gone
    with hanging_worker(fleet, tiny, log, PATIENCE="2"):
        wait_until(lambda: "'fetch' takes longer than 2 s" in log.read_text(), START_SECONDS)
        stored.unlink()
        stored.write_bytes(content)
        watched = fleet.producer("watch", job)
    assert watched.returncode == 0, watched.stderr
    assert fleet.ledger.jobs.progress(job).rows_done == 25


def test_sigterm_ends_a_process_that_hangs_and_its_batches_are_requeued(
    fleet, tiny, examples, tmp_path, hung
):
    log = tmp_path / "worker.log"
    job = fleet.producer("submit", examples, "--model", tiny, MANY).stdout.strip()
    with hanging_worker(fleet, tiny, log) as worker:
        wait_until(hung.exists, START_SECONDS)
        wait_until(
            lambda: fleet.ledger.jobs.progress(job).leased > 1, 30
        )  # others wait for the device
        worker.terminate()
        assert worker.wait(GRACE_SECONDS - 5) == 0  # ended by itself
    assert "told to end 3 s ago" in log.read_text()
    progress = fleet.ledger.jobs.progress(job)
    assert progress.leased == 0
    assert Queues(fleet.ledger.redis).length(progress.queue) == progress.batches


def test_sigterm_ends_a_process_that_hangs_though_redis_is_frozen_too(
    fleet, tiny, examples, tmp_path, hung
):
    fleet.producer("submit", examples, "--model", tiny)
    server = fleet.ledger.redis.info("server")["process_id"]
    with hanging_worker(fleet, tiny, tmp_path / "worker.log") as worker:
        wait_until(hung.exists, START_SECONDS)
        os.kill(server, signal.SIGSTOP)
        try:
            worker.terminate()
            assert worker.wait(GRACE_SECONDS - 5) == 0
        finally:
            os.kill(server, signal.SIGCONT)


def test_a_process_that_is_frozen_is_killed_and_replaced_and_the_liveness_file_shows_it(
    fleet, tiny, tmp_path, hung
):
    alive = tmp_path / "alive"
    hung.touch()  # none hangs
    with hanging_worker(fleet, tiny, tmp_path / "worker.log", VIRNUCPRO_LIVENESS_FILE=str(alive)):
        first = wait_until(lambda: ready_process(fleet), START_SECONDS)
        wait_until(lambda: age(alive) < 1, 10)
        os.kill(first, signal.SIGSTOP)
        wait_until(lambda: age(alive) > 1, 10)
        second = wait_until(lambda: ready_process(fleet, other_than=first), START_SECONDS)
        assert second != first
        wait_until(lambda: age(alive) < 1, 10)
    assert "the CPU is frozen (no heartbeat): it is killed" in (tmp_path / "worker.log").read_text()


@pytest.mark.slow
def test_a_worker_that_may_take_no_more_messages_is_neither_ready_nor_alive_until_it_may(
    redis, fleet, tiny, tmp_path, hung
):
    alive, ready, log = tmp_path / "alive", tmp_path / "ready", tmp_path / "worker.log"
    hung.touch()  # none hangs
    with redis.client as client:
        client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "+@all", "~*", "&*")
        variables = {
            "VIRNUCPRO_BROKER_URL": redis.url.replace("redis://", "redis://w:pw@"),
            "VIRNUCPRO_LIVENESS_FILE": str(alive),
            "VIRNUCPRO_READY_FILE": str(ready),
        }
        with hanging_worker(fleet, tiny, log, **variables):
            wait_until(ready.exists, START_SECONDS)
            client.execute_command("ACL", "SETUSER", "w", "-brpop")
            wait_until(lambda: not ready.exists() and age(alive) > 1, 30)
            wait_until(lambda: "takes no batches" in fleet.producer("status").stdout, 30)
            # Its process is replaced, and the next one refused at once.
            wait_until(lambda: "ended (exit code 2)" in log.read_text(), START_SECONDS)
            wait_until(lambda: age(alive) > 5, 30)
            assert not ready.exists()
            client.execute_command("ACL", "SETUSER", "w", "+brpop")
            wait_until(ready.exists, START_SECONDS)


def ready_process(fleet: Fleet, other_than: int = 0) -> int | None:
    """Return the process id of a worker that has loaded its model."""
    names = [worker.name for worker in fleet.ledger.workers.all() if is_ready(worker)]
    numbers = [int(name.split("@")[0].split("-")[1]) for name in names]
    return next((number for number in numbers if number != other_than), None)


def age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
