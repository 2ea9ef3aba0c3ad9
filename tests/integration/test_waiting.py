"""Keeper and worker wait for a Redis that is away when they start; their logs are JSON on demand.

Every URL and key has a password, which no line shows.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from common.ledger.ledger import Ledger
from common.local.processes import stop
from tests.support.processes import (
    START_SECONDS,
    Running,
    clean_environment,
    run_producer,
    start_command,
    wait_until,
)
from tests.support.redis_servers import RedisServer, free_port
from tests.support.secrets import SECRET

KEY = f"{SECRET}-0123456789abcdef"


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisServer]:
    """A Redis with a password, which is not started yet."""
    server = RedisServer(tmp_path / "redis", requirepass=SECRET)
    yield server
    server.close()


@pytest.fixture
def environment(redis, tmp_path) -> dict[str, str]:
    return clean_environment(
        VIRNUCPRO_BROKER_URL=f"redis://default:{SECRET}@127.0.0.1:{redis.port}/0",
        VIRNUCPRO_STORE=f"file://{tmp_path}/store",
        VIRNUCPRO_MESSAGE_KEY=KEY,
        VIRNUCPRO_LOG_FORMAT="json",
        VIRNUCPRO_LIVENESS_FILE=str(tmp_path / "alive"),
        VIRNUCPRO_READY_FILE=str(tmp_path / "ready"),
        VIRNUCPRO_WORKER_NAME="pod-7",
        VIRNUCPRO_METRICS="",
        AWS_SECRET_ACCESS_KEY=SECRET,
    )


@contextmanager
def running(
    module: str, *words: object, log: Path, environment: dict[str, str]
) -> Iterator[Running]:
    with log.open("wb") as output:
        process = start_command(module, *words, environment=environment, output=output)
    try:
        yield process
    finally:
        stop(process, 40)


def lines_of(log: Path) -> list[dict[str, object]]:
    """The lines of a log, each of which is an object, and none of which shows a secret."""
    text = log.read_text()
    assert SECRET not in text
    return [json.loads(line) for line in text.splitlines()]


def waits(log: Path) -> bool:
    return "Waiting for Redis. No Redis answers at redis://***@127.0.0.1" in log.read_text()


def test_a_worker_waits_for_redis_alive_and_not_ready_and_then_serves(
    redis, environment, tiny, examples, tmp_path
):
    log, alive, ready = tmp_path / "worker.log", tmp_path / "alive", tmp_path / "ready"
    port = free_port()
    words = ("start", "--model", tiny, "--gpus=none", f"--metrics=127.0.0.1:{port}")
    with running("workers.cli", *words, log=log, environment=environment) as worker:
        wait_until(lambda: waits(log), START_SECONDS)
        waited = ("worker", "Waiting for Redis.")
        wait_until(lambda: waited in [said(line) for line in lines_of(log)], START_SECONDS)
        assert alive.exists()
        assert not ready.exists()
        wait_until(lambda: why_not_ready(port).endswith("not ready: waiting for Redis\n"), 30)
        redis.start()
        wait_until(ready.exists, START_SECONDS)
        with redis.client as client:
            [name] = [worker.name for worker in Ledger(client).workers.all()]
        assert name.endswith("@pod-7")
        job = run_producer("submit", examples, "--model", tiny, environment=environment)
        watched = run_producer("watch", job.stdout.strip(), environment=environment)
        assert watched.returncode == 0, watched.stderr
        worker.terminate()
        wait_until(lambda: not ready.exists(), 5)
        assert worker.wait(30) == 0
    lines = lines_of(log)
    assert {line["process"] for line in lines} == {"supervisor", "worker"}
    assert {line["worker"] for line in lines if "job" in line} == {name}
    assert {line["logger"] for line in lines} > {"celery.worker.consumer.connection", "workers"}
    assert {"worker: Warm shutdown (MainProcess)", f"{name} ready."} < {
        line["message"] for line in lines
    }


def why_not_ready(port: int) -> str:
    with pytest.raises(HTTPError) as caught, urlopen(f"http://127.0.0.1:{port}/readyz"):
        pass
    with caught.value as answer:
        return answer.read().decode()


def said(line: dict[str, object]) -> tuple[object, str]:
    return line["process"], str(line["message"])[:18]


def test_a_keeper_waits_for_redis_and_then_keeps(redis, environment, tmp_path):
    log = tmp_path / "keeper.log"
    with running("producer.cli", "keeper", log=log, environment=environment) as keeper:
        wait_until(lambda: waits(log), START_SECONDS)
        redis.start()
        wait_until(lambda: "Keeping the jobs of" in log.read_text(), 30)
        keeper.terminate()
        assert keeper.wait(20) == 0
    assert {line["process"] for line in lines_of(log)} == {"keeper"}


@pytest.mark.parametrize("command", ["keeper", "worker"])
def test_sigterm_ends_a_process_that_waits_at_once(environment, tmp_path, command):
    log = tmp_path / "log"
    words = {
        "keeper": ("producer.cli", "keeper"),
        "worker": ("workers.cli", "start", "--model=random:esm2_t6_8M_UR50D", "--gpus=none"),
    }[command]
    with running(*words, log=log, environment=environment) as process:
        wait_until(lambda: waits(log), START_SECONDS)
        asked = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - asked < 10
    assert lines_of(log)


def test_an_error_of_use_is_json_too(environment, tmp_path):
    done = run_producer("keeper", environment={**environment, "VIRNUCPRO_BROKER_URL": "nowhere"})
    assert done.returncode == 2
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], line["process"]) == ("error", "keeper")
    assert "it has no redis://" in line["message"]
