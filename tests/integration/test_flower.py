"""Flower: who may read it, what it shows of workers, tasks and queues, and that it only shows."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from common.ledger.demand import DEMAND_KEY, DEMAND_SECONDS
from common.local.processes import start_dependent, stop
from common.model_source import ModelSource
from common.rungs import ladder
from common.wire.address import RedisAddress
from common.wire.celery_app import (
    EMBED_TASK,
    TRANSPORT_OPTIONS,
    celery_url,
    make_celery,
    publish,
    task_arguments,
)
from common.wire.dead_letters import DeadLetters
from common.wire.messages import Priority
from common.wire.queues import queue_name
from tests.support.flower import LOGIN, Flower, running_flower
from tests.support.jobs import manifest_of
from tests.support.processes import Fleet, clean_environment, run_producer, wait_until
from tests.support.redis_servers import HOST, free_port, running_redis
from tests.support.tls import make_certificate, tls_port
from tests.support.worlds import WORKER

pytest.importorskip("flower", reason="needs the extra flower")

OUTCOMES = ["done", "unstable", "failed", "skipped"]
MANIFEST = manifest_of([312] * 8)
MODEL = ModelSource.parse(MANIFEST.model)
QUEUE = queue_name(MODEL, MANIFEST.rung, MANIFEST.rung)

#: How the list of tasks describes every batch, after its number.
SIZE = "fp16, 312 rows, 3,744 tokens"


@contextmanager
def outcome_worker(
    fleet: Fleet, folder: Path, *outcomes: str, **environment: str
) -> Iterator[None]:
    """Run a worker whose batches have these outcomes until the block ends."""
    words = [sys.executable, "-m", "tests.support.outcome_worker", fleet.broker_url, QUEUE]
    with (folder / "worker.log").open("wb") as output:
        variables = clean_environment(**environment)
        process = start_dependent([*words, *outcomes], env=variables, output=output)
    try:
        yield
    finally:
        stop(process, 30)


def send(broker_url: str, *indices: int) -> None:
    publish(make_celery(broker_url, []), MODEL, map(MANIFEST.batch, indices))


def workers(flower: Flower) -> list[dict[str, object]]:
    found: list[dict[str, object]] = flower.json("/workers?json=1")["data"]
    return found


def queue_lengths(flower: Flower) -> dict[str, int]:
    answer = flower.json("/api/queues/length")
    return {queue["name"]: queue["messages"] for queue in answer["active_queues"]}


def assert_refuses_orders(flower: Flower, worker: object) -> None:
    verbs = ("apply", "async-apply", "send-task")
    orders = (
        *(f"/api/worker/shutdown/{worker}", f"/api/worker/pool/shrink/{worker}"),
        *(f"/api/worker/queue/cancel-consumer/{worker}", "/api/task/revoke/any"),
        *(f"/api/task/{verb}/{EMBED_TASK}" for verb in verbs),
    )
    for order in orders:
        assert flower.ask(order, json.dumps({"args": []}).encode())[0] == 403, order


def test_flower_tells_tasks_apart_shows_queues_and_takes_no_orders(fleet, tmp_path):
    with running_flower(fleet.environment, tmp_path) as flower:
        with outcome_worker(fleet, tmp_path, *OUTCOMES):
            wait_until(lambda: workers(flower), 60)
            wait_until(flower.asked_workers, 20)
            send(fleet.broker_url, *range(len(OUTCOMES)))
            wait_until(lambda: sum(bool(task["result"]) for task in flower.tasks()) == 4, 30)
            [worker] = workers(flower)
            assert worker["status"] is True
            tasks = sorted(flower.tasks(), key=lambda task: task["kwargs"])
            shown = [(task["kwargs"], task["state"], task["result"]) for task in tasks]
            assert shown == [
                (f"batch 0, {SIZE}", "SUCCESS", "done 312 rows"),
                (f"batch 1, {SIZE}", "SUCCESS", "done 309 rows, 3 rows on to selective_fp32"),
                (f"batch 2, {SIZE}", "FAILURE", tasks[2]["result"]),
                (f"batch 3, {SIZE}", "SUCCESS", "skipped: lease held by another"),
            ]
            assert tasks[2]["result"].startswith("failed: ValueError: no use")
            assert {task["name"] for task in tasks} == {MANIFEST.job}
            assert_refuses_orders(flower, worker["hostname"])
        send(fleet.broker_url, 4, 5, 6)
        fleet.ledger.workers.announce(WORKER.model_copy(update={"queues": (QUEUE,)}))
        assert queue_lengths(flower) == {QUEUE: 3}
        assert QUEUE in flower.ask("/broker")[1]
        found = flower.json(f"/api/tasks?search=kwargs:job={MANIFEST.job}&state=FAILURE")
        assert len(found) == 1
    assert flower.process.wait(20) == 0
    log = flower.log.read_text()
    assert "Traceback" not in log
    assert LOGIN not in log
    assert DeadLetters(fleet.ledger.redis).count() == 0


def test_flower_over_tls_hears_events_and_reads_queues(tmp_path):
    with running_redis(tmp_path / "redis") as redis:
        certificate = make_certificate(tmp_path)
        with tls_port(redis.port, certificate) as port:
            url = f"rediss://{HOST}:{port}/0?ssl_ca_certs={certificate.file}"
            environment = clean_environment(VIRNUCPRO_BROKER_URL=url, VIRNUCPRO_LOG_FORMAT="json")
            with running_flower(environment, tmp_path) as flower:
                send(redis.url, 0, 1)
                redis.client.hset(DEMAND_KEY, QUEUE, 2)  # as a keeper does
                redis.client.expire(DEMAND_KEY, DEMAND_SECONDS)
                app = make_celery(redis.url, [])
                with app.connection() as connection, app.events.Dispatcher(connection) as events:
                    wait_until(lambda: events.send("worker-online") or workers(flower), 30)
                lengths = queue_lengths(flower)
                assert {name: length for name, length in lengths.items() if length} == {QUEUE: 2}
                assert len(lengths) == len(Priority) * len(ladder(MANIFEST.rung))
                page = flower.ask("/broker")[1]
                assert f"rediss://{HOST}:{port}/0" in page
                assert QUEUE in page
            lines = [json.loads(line) for line in flower.log.read_text().splitlines()]
            assert [line for line in lines if line["level"] != "info"] == []


def test_whoever_has_no_login_sees_nothing_but_that_flower_lives(fleet, tmp_path):
    with running_flower(fleet.environment, tmp_path, prefix="/fleet") as flower:
        for login in (None, "operator:wrong", "operator:a-long-word:"):
            other = dataclasses.replace(flower, login=login)
            for page in ("", "workers", "tasks", "broker", "api/workers", "api/tasks"):
                assert other.ask(f"/{page}")[0] == 401, page
        assert "/fleet/static/" in flower.ask("/tasks")[1]


def test_without_a_login_no_other_site_may_read_it_through_a_browser(fleet, tmp_path):
    with running_flower(fleet.environment, tmp_path, login=None) as flower:
        assert flower.ask("/tasks")[0] == 200
        assert flower.ask("/api/tasks")[0] == 401
        assert flower.ask(f"/api/task/send-task/{EMBED_TASK}", b"{}")[0] == 401
        assert "Access-Control-Allow-Origin" not in flower.headers("/tasks")
        for name, status in (("localhost", 200), ("[::1]:5555", 200), ("127.0.0.1.example", 403)):
            assert dataclasses.replace(flower, name=name).ask("/tasks")[0] == status


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        (["--address=0.0.0.0:5555"], {}, "others can reach it, and would see every job. Set"),
        (["--address=:1:2"], {}, "--address :1:2: not HOST:PORT"),
        ([], {"VIRNUCPRO_FLOWER_LOGIN": "s3cret"}, "VIRNUCPRO_FLOWER_LOGIN: not USER:PASSWORD"),
        (["--login-file=missing"], {}, "missing: No such file or directory."),
        (["--address=192.0.2.1:5555", "--login-file=logins"], {}, "192.0.2.1:5555: Cannot assign"),
    ],
)
def test_flower_does_not_start_with_wrong_options(fleet, tmp_path, options, variables, expected):
    (tmp_path / "logins").write_text(f"{LOGIN}\nsecond:pass:word\n")
    environment = {**fleet.environment, **variables}
    done = run_producer("flower", *options, environment=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "s3cret" not in done.stderr
    assert LOGIN not in done.stderr


def test_flower_ends_where_redis_refuses_it(fleet):
    refused = fleet.broker_url.replace("://", "://someone:s3cret@")
    environment = {**fleet.environment, "VIRNUCPRO_BROKER_URL": refused}
    done = run_producer("flower", "--address", f"{HOST}:{free_port()}", environment=environment)
    assert done.returncode == 2
    assert "refuses this user and password" in done.stderr
    assert "s3cret" not in done.stderr


def test_without_the_extra_it_says_how_to_install_flower():
    program = (
        "import sys; sys.modules['flower'] = None; sys.argv = ['producer', 'flower']; "
        "from producer.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("producer: Flower is not installed. To install it: pip install ")


def test_flower_needs_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None; import producer.cli.flower_pages; "
        "print('workers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_a_stranger_s_tasks_are_dead_letters_and_the_worker_goes_on(fleet, tmp_path):
    stranger = Celery("stranger", broker=celery_url(RedisAddress.parse(fleet.broker_url)))
    stranger.conf.update(broker_transport_options=TRANSPORT_OPTIONS)
    key = {"VIRNUCPRO_MESSAGE_KEY": "k" * 16}
    with outcome_worker(fleet, tmp_path, *["done"] * 8, **key):
        stranger.send_task("tasks.add", (1, 2), queue=QUEUE)
        stranger.send_task(EMBED_TASK, kwargs={"job": "x"}, queue=QUEUE)
        stranger.send_task(EMBED_TASK, kwargs=task_arguments(MANIFEST.batch(0)), queue=QUEUE)
        letters = DeadLetters(fleet.ledger.redis)
        wait_until(lambda: letters.count() == 3, 60)
        assert {letter.reason.split(":")[0] for letter in letters.latest()} == {
            "not a task of this fleet",
            "not a batch that this version knows",
            "not signed",
        }
