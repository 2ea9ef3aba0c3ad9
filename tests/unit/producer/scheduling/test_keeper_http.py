"""The pages of a keeper: demand is a number or an error, and none of them waits for Redis."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.http import Answer
from common.job.manifest import write_manifest
from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery
from common.wire.redis_client import redis_client
from producer.scheduling import keeper_http
from producer.scheduling.keeper import Keeper
from producer.scheduling.keeper_http import KeeperPages
from producer.scheduling.publisher import Publisher
from tests.support.redis_servers import RedisServer, running_redis
from tests.support.staged import Job
from tests.support.stores import folder_store
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

POOL = "random.esm2_t6_8M_UR50D.fp16"


@pytest.fixture
def pages(job: Job, redis_url: str) -> KeeperPages:
    return KeeperPages(redis_url, Keeper(job.store, job.ledger, job.publisher))


def json_of(answer: Answer) -> tuple[int, Any]:
    assert answer.content_type == "application/json"
    return answer.status, json.loads(answer.body)


def step(pages: KeeperPages) -> None:
    pages.keeper.next_step = 0
    pages.keeper.step()


def test_every_keeper_tells_the_demand_once_one_has_acted(pages, job, redis_url):
    job.open()
    other = KeeperPages(redis_url, Keeper(job.store, job.ledger, job.publisher))
    status, found = json_of(other.demand({}))
    assert status == 503
    assert "not known" in found["error"]
    step(pages)
    for keeper in (pages, other):
        assert json_of(keeper.demand({})) == (200, {"batches": 3, "pools": {POOL: 3}})
        assert json_of(keeper.demand({"pool": POOL})) == (200, {"pool": POOL, "batches": 3})


def test_a_model_stands_for_all_of_its_pools_and_an_unknown_one_has_nothing(pages, job):
    job.open()
    step(pages)
    model = POOL.removesuffix(".fp16")
    assert json_of(pages.demand({"pool": model}))[1] == {"pool": model, "batches": 3}
    for other in ("esm2_t6_8M_UR50D.fp16", "random"):
        assert json_of(pages.demand({"pool": other})) == (200, {"pool": other, "batches": 0})


def test_the_demand_falls_with_the_work_and_is_0_at_its_end(pages, job):
    job.open()
    step(pages)
    job.compute(job.manifest.batch(0))
    step(pages)
    assert json_of(pages.demand({"pool": POOL}))[1]["batches"] == 2
    job.work()
    step(pages)
    assert json_of(pages.demand({"pool": POOL})) == (200, {"pool": POOL, "batches": 0})


def test_after_redis_was_emptied_the_demand_is_an_error_until_the_jobs_are_back(
    pages, job, monkeypatch
):
    write_manifest(job.store, job.manifest)
    job.open()
    step(pages)
    monkeypatch.setattr(pages.keeper, "_restore_unknown_jobs", lambda: None)
    job.ledger.redis.flushall()
    step(pages)
    assert json_of(pages.demand({"pool": POOL}))[0] == 503
    monkeypatch.undo()
    step(pages)
    assert json_of(pages.demand({"pool": POOL}))[1]["batches"] == 3


def test_a_keeper_is_healthy_while_its_loop_goes_on(pages, monkeypatch):
    status, found = json_of(pages.health({}))
    assert (status, found["steps"], found["acting"]) == (200, True, False)
    monkeypatch.setattr(keeper_http, "HUNG_SECONDS", 0.0)
    status, found = json_of(pages.health({}))
    assert (status, found["steps"]) == (503, False)
    with pages.own.step(pages.keeper):
        step(pages)
    assert json_of(pages.health({}))[1]["acting"] is True


# --- a Redis that does not answer ---------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def network(server: RedisServer) -> Iterator[TcpProxy]:
    with tcp_proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def far_pages(network: TcpProxy, tmp_path: Path) -> KeeperPages:
    """The pages of an acting keeper with a network between it and Redis."""
    url = f"redis://127.0.0.1:{network.port}/0"
    ledger = Ledger(redis_client(url))
    publisher = Publisher(ledger, make_celery(url, []), 10)
    pages = KeeperPages(url, Keeper(folder_store(tmp_path / "store"), ledger, publisher))
    step(pages)
    return pages


@pytest.mark.parametrize("fault", ["frozen", "silent", "cut"])
def test_a_redis_that_does_not_answer_keeps_no_page_waiting(far_pages, server, network, fault):
    assert b"virnucpro_redis_up 1.0" in far_pages.metrics({}).body
    assert json_of(far_pages.demand({}))[0] == 200
    if fault == "frozen":
        server.freeze()
    else:
        network.blackhole()
        if fault == "cut":
            network.cut()
    for _ in range(2):  # with the connection from before, and with a new one
        started = time.monotonic()
        found = far_pages.metrics({}).body
        # Far below Redis's own time-outs, with room for a busy machine.
        assert time.monotonic() - started < 5
        assert b"virnucpro_redis_up 0.0" in found
        assert b"virnucpro_keeper_acting 1.0" in found
        assert b"virnucpro_jobs{" not in found
        started = time.monotonic()
        assert json_of(far_pages.demand({"pool": POOL}))[0] == 503
        assert time.monotonic() - started < 5
        assert json_of(far_pages.health({}))[0] == 200
    server.thaw()
    network.heal()
    assert b"virnucpro_redis_up 1.0" in far_pages.metrics({}).body
    assert json_of(far_pages.demand({}))[0] == 200
