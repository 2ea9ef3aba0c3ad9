"""The Redis of the chart, started from its manifest, and what the chart's pods do on it."""

import base64
import time
from dataclasses import replace

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, ResponseError

from tests.support.chart import find, pod_of, render
from tests.support.chart_redis import ChartRedis, chart_redis, password_of
from tests.support.containers import variables
from tests.support.flower import running_flower
from tests.support.processes import (
    START_SECONDS,
    clean_environment,
    run_producer,
    running_keeper,
    running_worker,
    wait_until,
)
from tests.support.redis_servers import HOST
from tests.support.results import load

VALUES = {
    "submissions": [{"name": "proteins", "input": "s3://bucket/proteins.fasta"}],
    "autoscaling": {"deletionCost": False},  # there is no API to ask
}
TLS = {"redis": {"tls": {"enabled": True, "existingSecret": "redis-tls"}}}

PODS = {
    "keeper": ("Deployment", "keeper", "keeper"),
    "worker": ("Deployment", "esm2-650m", "worker"),
    "flower": ("Deployment", "flower", "flower"),
    "producer": ("CronJob", "proteins", "submit"),
}


def client(redis: ChartRedis, user: str) -> Redis:
    password = password_of(redis.objects, user)
    return Redis(HOST, redis.port, username=user, password=password, decode_responses=True)


@pytest.mark.parametrize("tls", [pytest.param(False, id="plain"), pytest.param(True, id="TLS")])
def test_each_pod_does_its_work_on_it_as_its_user(tls, tiny, tmp_path):
    redis = chart_redis(render({**VALUES, **(TLS if tls else {})}), tmp_path / "redis")
    shared = clean_environment(VIRNUCPRO_STORE=f"file://{tmp_path}/store")
    of = {
        user: {**redis.environment(pod_of(redis.objects, kind, name), container), **shared}
        for user, (kind, name, container) in PODS.items()
    }
    for user, environment in of.items():
        assert f"{'rediss' if tls else 'redis'}://{user}:" in environment["VIRNUCPRO_BROKER_URL"]
        environment.pop("VIRNUCPRO_WORKER_NAME", None)
    login = of["flower"]["VIRNUCPRO_FLOWER_LOGIN"]
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">one\nMKVLGAST\n>two\nMKWVTFISLL\n")
    submit = ("submit", fasta, "--model", tiny, "--precision", "fp32", "-o", tmp_path / "p.h5")
    with (
        redis.running(),
        running_keeper(tmp_path / "keeper.log", of["keeper"], "--metrics", ""),
        running_worker(tiny, tmp_path / "worker.log", of["worker"], "--metrics", ""),
        running_flower(of["flower"], tmp_path, login=login) as flower,
    ):
        done = run_producer(*submit, environment=of["producer"])
        assert done.returncode == 0, done.stderr
        wait_until(lambda: flower.json("/workers?json=1")["data"], START_SECONDS)
    assert list(load(tmp_path / "p.h5")["ids"]) == [b"one", b"two"]


def test_nobody_gets_in_without_a_password(tmp_path):
    redis = chart_redis(render(), tmp_path)
    with redis.running(), pytest.raises(AuthenticationError):
        Redis(HOST, redis.port).ping()


def test_a_new_password_counts_from_the_next_start(tmp_path):
    redis = chart_redis(render(), tmp_path)
    with client(redis, "worker") as old:
        secret = find(redis.objects, "Secret", "secrets")["data"]
        secret["worker-password"] = base64.b64encode(b"n" * 48).decode()
        environment = variables(redis.sandbox.container, redis.objects)
        restarted = replace(redis, sandbox=replace(redis.sandbox, environment=environment))
        with restarted.running(), client(redis, "worker") as new:
            assert new.ping()
            with pytest.raises(AuthenticationError):
                old.ping()


def test_data_survive_a_new_pod(tmp_path):
    redis = chart_redis(render(), tmp_path)
    with redis.running(), client(redis, "keeper") as keeper:
        keeper.set("virnucpro:test", "kept")
    with redis.running(), client(redis, "keeper") as keeper:
        assert keeper.get("virnucpro:test") == "kept"


def test_one_that_loads_its_data_is_alive_and_not_ready(tmp_path):
    redis = chart_redis(render(), tmp_path, "--key-load-delay", "300")
    with (
        redis.running(),
        client(redis, "keeper") as keeper,
        keeper.pipeline(transaction=False) as together,
    ):
        for number in range(15_000):
            together.set(f"virnucpro:{number}", "x" * 100)
        together.execute()
    with redis.sandbox.running(redis.log):
        wait_until(lambda: redis.sandbox.probe("livenessProbe"), 30)
        assert not redis.sandbox.probe("readinessProbe")
        assert times_loaded(redis) == 1, "it had loaded all before the probes ended"
        wait_until(lambda: redis.sandbox.probe("readinessProbe"), 60)
        assert times_loaded(redis) == 2


def test_one_whose_disk_is_full_is_ready_and_says_so(tmp_path):
    """Without a ready pod its address would refuse connections, as if Redis were away."""
    redis = chart_redis(render(), tmp_path, file_kilobytes=64)
    with redis.running(), client(redis, "keeper") as keeper:
        with pytest.raises(ResponseError, match="MISCONF"):
            fill(keeper)
        assert redis.sandbox.probe("readinessProbe")
        assert redis.sandbox.probe("livenessProbe")
        assert keeper.get("virnucpro:0") == "x" * 1000


def fill(keeper: Redis) -> None:
    """Write more than the file may hold."""
    for number in range(1000):
        keeper.set(f"virnucpro:{number}", "x" * 1000)
        time.sleep(0.001)  # the file is written between two commands


def times_loaded(redis: ChartRedis) -> int:
    return redis.log.read_text().count("Ready to accept connections")


def test_one_that_hangs_is_not_alive(tmp_path):
    redis = chart_redis(render(), tmp_path)
    with redis.running() as server:
        server.suspend()
        try:
            assert not redis.sandbox.probe("livenessProbe")
        finally:
            server.resume()
