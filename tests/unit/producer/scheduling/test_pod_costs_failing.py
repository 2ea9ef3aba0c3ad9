"""Deletion costs with an API that fails: the keeper goes on, and sets them once it can."""

import logging
import threading
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery
from common.wire.redis_client import redis_client
from producer.scheduling import pod_costs as module
from producer.scheduling.keeper import Keeper
from producer.scheduling.pod_costs import PodCosts
from producer.scheduling.pods import Pods
from producer.scheduling.publisher import Publisher
from tests.support.kubernetes_api import HOST, api
from tests.support.pod_costs import (
    announce,
    counted,
    keeper,
    keeper_of,
    owner_of,
    step,
    wait_for_requests,
    without_pauses,
)

PODS = [f"worker-{letter}" for letter in "abcd"]

__all__ = ["api", "counted", "keeper", "keeper_of", "without_pauses"]  # fixtures


def test_an_api_that_hangs_keeps_no_step_waiting(keeper, job, api):
    announce(job.ledger, *PODS)
    step(keeper)
    api.hang = 3.0
    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    started = time.monotonic()
    for _ in range(3):
        keeper.next_step = 0.0
        keeper.step()
    assert time.monotonic() - started < api.hang
    wait_for_requests()
    assert api.cost("worker-a") == 1
    assert len(api.asked) == len(PODS) + 1


def test_a_failing_api_is_asked_and_mentioned_seldom_and_counted(
    keeper, job, api, counted, caplog, monkeypatch
):
    announce(job.ledger, *PODS)
    api.has_right = False
    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    for _ in range(3):
        step(keeper)
    assert counted == {"failed": 1}
    for _ in range(3):
        monkeypatch.setattr(keeper.pod_costs, "_next_try", 0.0)
        step(keeper)
    assert counted == {"failed": 4}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "pod worker-a was not set" in record.getMessage()
    assert "the right to patch pods/status in the namespace fleet" in record.getMessage()
    api.has_right = True
    monkeypatch.setattr(keeper.pod_costs, "_next_try", 0.0)
    step(keeper)
    assert [api.cost(pod) for pod in PODS] == [1, 0, 0, 0]
    assert job.queued() != {}  # the keeper did its work meanwhile


def test_a_cost_whose_answer_was_lost_is_taken_back(keeper, job, api, counted, monkeypatch):
    api.is_lossy = True
    batch = job.manifest.batch(0)
    job.claim(batch, owner_of("worker-a"))
    step(keeper)
    assert (api.cost("worker-a"), counted) == (1, {"failed": 1})
    api.is_lossy = False
    job.ledger.leases.release(batch, owner=owner_of("worker-a"))
    monkeypatch.setattr(keeper.pod_costs, "_next_try", 0.0)
    step(keeper)
    assert api.cost("worker-a") == 0


def test_a_pod_that_cannot_be_set_keeps_no_other_waiting(keeper, job, api, monkeypatch):
    api.refused.add("worker-a")
    for index, pod in enumerate(PODS[:3]):
        job.claim(job.manifest.batch(index), owner_of(pod))
    for _ in range(2):
        monkeypatch.setattr(keeper.pod_costs, "_next_try", 0.0)
        step(keeper)
    assert [api.cost(pod) for pod in PODS] == [0, 1, 1, 0]
    assert len(api.asked) == 4


def test_requests_of_a_large_fleet_are_spread(keeper, job, api, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    pods = [f"large-{number}" for number in range(20)]
    api.add(*pods)
    announce(job.ledger, *pods)
    started = time.monotonic()
    step(keeper)
    assert time.monotonic() - started >= 20 * 0.05
    assert len(api.patched) == 20
    assert api.connections == 1


def test_the_costs_of_a_fleet_without_redis_are_an_error_of_the_step(job, api):
    ledger = Ledger(redis_client("unix:///nowhere"))
    keeper = Keeper(job.store, ledger, Publisher(ledger, make_celery("redis://", []), 1))
    costs = PodCosts(ledger, keeper.one_by_one, Pods(HOST, api.port, api.account))
    with pytest.raises(RedisConnectionError):
        costs.look(["job"], time.monotonic())
    assert api.asked == []


def test_a_thread_that_cannot_start_is_a_failure_and_ends_no_step(
    keeper, job, api, counted, caplog, monkeypatch
):
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            step(keeper)
    assert counted == {"failed": 1}
    assert "can't start new thread" in caplog.text
    monkeypatch.setattr(keeper.pod_costs, "_next_try", 0.0)
    step(keeper)
    assert api.cost("worker-a") == 1


def test_pods_that_are_gone_are_forgotten_though_the_api_refuses(keeper, job, api, monkeypatch):
    monkeypatch.setattr(module, "GONE_SECONDS", 0.0)
    api.has_right = False
    batch = job.manifest.batch(0)
    costs = keeper.pod_costs
    for number in range(5):
        job.claim(batch, owner_of(f"gone-{number}"))
        monkeypatch.setattr(costs, "_next_try", 0.0)
        step(keeper)
        job.ledger.leases.release(batch, owner=owner_of(f"gone-{number}"))
    step(keeper)
    kept = (costs._wanted, costs._known, costs._failures, costs._seen, costs._tried)
    assert [len(each) for each in kept] == [0] * 5
