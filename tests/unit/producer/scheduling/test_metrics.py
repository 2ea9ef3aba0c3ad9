"""Metrics: they equal the ledger's counts, and say when Redis is unreachable."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.errors import UserError
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.queues import KEY_PREFIX
from producer.scheduling.keeper import Keeper
from producer.scheduling.metrics import FleetCollector, serve_metrics, split_address
from tests.support.jobs import failed, manifest_of, ok, retry_after, unstable

MANIFEST = manifest_of([3, 5, 1, 1])
JOB = MANIFEST.job
QUEUE = "random.esm2_t6_8M_UR50D.fp16"

Values = dict[tuple[str, ...], float]


def scrape(collector: FleetCollector) -> Values:
    """Return the values that Prometheus gets, by name and labels."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    text = generate_latest(registry).decode()
    return {
        (sample.name.removeprefix("virnucpro_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def collector(job) -> FleetCollector:
    return FleetCollector(job.ledger, Keeper(job.store, job.ledger, job.publisher))


def test_a_fleet_without_anything_has_its_zeros(collector):
    assert scrape(collector) == {
        ("keeper_acting",): 0,
        ("redis_up",): 1,
        ("jobs", "open"): 0,
        ("jobs", "cancelled"): 0,
        ("jobs", "stopped"): 0,
        ("jobs", "finished"): 0,
        ("dead_letters",): 0,
        ("leases",): 0,
    }


def test_a_job_s_values_are_those_of_the_ledger(collector, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    ledger.jobs.advance(MANIFEST, 4)
    first = unstable(MANIFEST.batch(1), 4, 6)
    for result in (ok(MANIFEST.batch(0)), first, failed(MANIFEST.batch(3))):
        ledger.results.complete(result)
    ledger.leases.claim(retry_after(MANIFEST, first), owner="a", weights="w")
    ledger.redis.lpush(f"{KEY_PREFIX}{QUEUE}", "a", "b")
    found = scrape(collector)
    expected = {
        "batches": 4,
        "batches_done": 2,
        "batches_published": 4,
        "batches_waiting": 1,
        "batches_leased": 1,
        "batches_failed": 1,
        "leases_lost": 0,
        "rows": 10,
        "rows_done": 6,
        "rows_retried": 2,
        "rows_quarantined": 0,
        "tokens": 120,
        "tokens_done": 72,
    }
    assert {name: found[f"job_{name}", JOB] for name in expected} == expected
    assert found["job_batches_at_rung", JOB, "fp16"] == 3
    assert found["job_batches_at_rung", JOB, "selective_fp32"] == 0
    assert found["jobs", "open"] == found["leases",] == 1
    assert found["queue_messages", QUEUE] == 2
    assert found["queue_messages", f"{QUEUE}.fp32"] == 0


def test_a_speed_is_that_between_scrapes_and_says_when_a_job_ends(collector, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    first = scrape(collector)
    assert first["job_tokens_per_second", JOB] == 0
    assert ("job_eta_seconds", JOB) not in first
    ledger.results.complete(ok(MANIFEST.batch(1)))
    second = scrape(collector)
    speed, left = second["job_tokens_per_second", JOB], 60
    assert speed > 0
    assert second["job_eta_seconds", JOB] == pytest.approx(left / speed)


def test_jobs_that_are_over_are_counted_and_no_more(collector, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    other = manifest_of([1], job="other")
    ledger.jobs.create(other, QUEUE)
    ledger.results.complete(ok(other.batch(0)))
    ledger.jobs.cancel(JOB)
    found = scrape(collector)
    assert (found["jobs", "cancelled"], found["jobs", "finished"]) == (1, 1)
    assert not [name for name, *_ in found if name.startswith("job_")]


def test_workers_and_dead_letters_are_counted(collector, ledger):
    for number, model in enumerate(["one", "one", "two"]):
        place = {"device": "CPU", "precision": Rung.FP32, "queues": ()}
        ledger.workers.announce(WorkerInfo(name=str(number), model=model, weights=None, **place))
    DeadLetters(ledger.redis).add(DeadLetter(queue="q", worker="w", reason="r", message="m"))
    found = scrape(collector)
    assert (found["workers", "one"], found["workers", "two"]) == (2, 1)
    assert found["dead_letters",] == 1


def test_the_keeper_that_acts_says_so(collector):
    collector.keeper.step()
    assert scrape(collector)["keeper_acting",] == 1


def test_a_redis_that_is_away_is_said_and_nothing_else(collector, tmp_path):
    away = Redis(unix_socket_path=str(tmp_path / "none"), retry=Retry(NoBackoff(), 0))
    collector.ledger = Ledger(away)
    assert scrape(collector) == {("keeper_acting",): 0, ("redis_up",): 0}


# --- the address --------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        yield f"{host}:{port}"


def test_an_address_that_is_taken_is_named(collector, taken):
    with pytest.raises(UserError, match=f"--metrics {taken}: .*Give a free HOST:PORT"):
        serve_metrics(taken, collector.ledger, collector.keeper)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:", ":x", "127.0.0.1:70000", ":-1"])
def test_what_is_no_address_is_named(collector, address):
    with pytest.raises(UserError, match=f"--metrics {address}: "):
        serve_metrics(address, collector.ledger, collector.keeper)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("[::1]:9808", ("::1", 9808)),
        ("[::]:1", ("::", 1)),
        (":9808", ("127.0.0.1", 9808)),
        ("localhost:9808", ("localhost", 9808)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_the_spellings_of_an_address(address, expected):
    assert split_address(address) == expected


@pytest.mark.parametrize(
    "address",
    ["::1:9808", "9808", "[::1]", "host:", "host:0", "host:-1", "h:9_8", "http://h:9", "a b:9"],
)
def test_another_spelling_is_refused(address):
    with pytest.raises(UserError, match=r"as in .*9808. Give a free HOST:PORT"):
        split_address(address)


def test_metrics_are_served_at_an_ipv6_address():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", SERVE, f"[::1]:{port}"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "connected", done.stderr


#: In a process of its own, as the server never ends.
SERVE = """
import socket, sys
from common.ledger.ledger import Ledger
from common.wire.redis_client import redis_client
from producer.scheduling import metrics
metrics.serve_metrics(sys.argv[1], Ledger(redis_client("unix:///nowhere")), None)
socket.create_connection(("::1", int(sys.argv[1].rpartition(":")[2])), 20).close()
sys.stdout.write("connected")
"""
