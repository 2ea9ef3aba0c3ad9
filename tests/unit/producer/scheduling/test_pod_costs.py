"""Deletion costs: pods of busy workers have 1 and all others 0, and few requests are made."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.job.manifest import write_manifest
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.rungs import Rung
from common.wire.celery_app import make_celery
from common.wire.redis_client import redis_client
from common.wire.signing import MessageKeys
from producer.scheduling import pod_costs as module
from producer.scheduling.keeper import Keeper
from producer.scheduling.pod_costs import PodCosts, pod_of
from producer.scheduling.pods import Pods
from producer.scheduling.publisher import Publisher
from tests.support.jobs import ok
from tests.support.kubernetes_api import HOST, KubernetesApi, kubernetes_api
from tests.support.staged import Job
from workers.process.entry import worker_info

PODS = [f"worker-{letter}" for letter in "abcd"]


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    folder = tmp_path / "api"
    folder.mkdir()
    with kubernetes_api(folder, PODS) as running:
        yield running


@pytest.fixture
def counted() -> Counter[str]:
    return Counter()


@pytest.fixture
def keeper_of(job: Job, api: KubernetesApi, counted: Counter[str]) -> Callable[[], Keeper]:
    """Returns keepers of the job's store that set costs."""

    def make() -> Keeper:
        keeper = Keeper(job.store, job.ledger, job.publisher)
        pods = Pods(HOST, api.port, api.account)

        def count(outcome: str) -> None:
            counted[outcome] += 1

        keeper.pod_costs = PodCosts(job.ledger, keeper.one_by_one, pods, count)
        return keeper

    return make


@pytest.fixture
def keeper(keeper_of: Callable[[], Keeper], job: Job) -> Keeper:
    write_manifest(job.store, job.manifest)
    job.open()
    return keeper_of()


def worker_of(pod: str, pid: int = 7) -> str:
    return f"cuda0-{pid}@{pod}"


def owner_of(pod: str, pid: int = 7) -> str:
    return f"{worker_of(pod, pid)}/0123abcd"


def wait_for_requests() -> None:
    for thread in threading.enumerate():
        if thread.name == "pod costs":
            thread.join(10)
            assert not thread.is_alive()


def step(keeper: Keeper) -> None:
    """Do a step now, and wait for what it has written."""
    keeper.next_step = 0.0
    keeper.step()
    wait_for_requests()


def announce(ledger: Ledger, *pods: str) -> None:
    source = ModelSource("esm2_t6_8M_UR50D")
    for pod in pods:
        worker = worker_info(source, "cpu", Rung.FP16, MessageKeys(), pod, 0.0)
        ledger.workers.announce(worker)


def test_a_worker_costs_more_from_its_first_claim_to_its_last_release(keeper, job, api):
    first, second, third = (job.manifest.batch(index) for index in range(3))
    step(keeper)
    job.claim(first, owner_of("worker-a"))
    job.claim(second, owner_of("worker-a", pid=8))  # another GPU of the same pod
    step(keeper)
    assert api.costs() == {"worker-a": 1, "worker-b": 0, "worker-c": 0, "worker-d": 0}
    job.ledger.leases.release(first, owner=owner_of("worker-a"))
    job.claim(third, owner_of("worker-b"))
    step(keeper)
    assert [api.cost(pod) for pod in PODS] == [1, 1, 0, 0]
    job.ledger.results.complete(ok(second), owner=owner_of("worker-a", pid=8))
    step(keeper)
    assert [api.cost(pod) for pod in PODS] == [0, 1, 0, 0]
    job.lapse(third)  # its worker disappeared
    step(keeper)
    assert [api.cost(pod) for pod in PODS] == [0, 0, 0, 0]


def test_only_changes_between_idle_and_busy_are_requests(keeper, job, api, counted):
    announce(job.ledger, *PODS)
    first, second, third = (job.manifest.batch(index) for index in range(3))
    step(keeper)
    assert sorted(api.patched) == [(pod, "0") for pod in PODS]  # what they had is not known
    job.claim(first, owner_of("worker-a"))
    for _ in range(5):  # always one batch or two
        step(keeper)
        job.claim(second, owner_of("worker-a"))
        step(keeper)
        job.ledger.leases.release(second, owner=owner_of("worker-a"))
    job.claim(third, owner_of("worker-b"))
    for _ in range(5):
        step(keeper)
    assert api.patched[4:] == [("worker-a", "1"), ("worker-b", "1")]
    assert counted == {"set": 6}


def test_busy_workers_are_marked_before_idle_ones(keeper, job, api):
    announce(job.ledger, *PODS)
    job.claim(job.manifest.batch(0), owner_of("worker-d"))
    job.claim(job.manifest.batch(1), owner_of("worker-b"))
    step(keeper)
    assert api.patched == [(f"worker-{x}", cost) for x, cost in zip("bdac", "1100", strict=True)]


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_keeper_that_takes_over_corrects_what_the_one_before_left(
    keeper, keeper_of, job, api, is_noticed
):
    announce(job.ledger, *PODS)
    batch = job.manifest.batch(0)
    job.claim(batch, owner_of("worker-a"))
    step(keeper)
    keeper.stop()
    job.ledger.leases.release(batch, owner=owner_of("worker-a"))
    job.claim(batch, owner_of("worker-b"))
    other = keeper_of()
    step(other)
    assert [api.cost(pod) for pod in PODS] == [0, 1, 0, 0]
    job.ledger.leases.release(batch, owner=owner_of("worker-b"))
    keeper._next_hold = 0.0
    if is_noticed:
        step(keeper)
        assert not keeper.acting
    else:  # it was frozen meanwhile
        keeper.pod_costs._wanted_at -= module.FRESH_SECONDS
    other.stop()
    keeper._next_hold = 0.0
    step(keeper)  # which last wrote 0 for worker-b
    assert api.costs() == dict.fromkeys(PODS, 0)


def test_a_keeper_that_does_not_act_asks_for_nothing(keeper, keeper_of, job, api):
    step(keeper)
    other = keeper_of()
    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    step(other)
    assert not other.acting
    assert api.asked == []


def test_what_was_seen_long_ago_is_not_written(keeper, job, api, monkeypatch):
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.2)
    api.hang = 0.5
    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    job.claim(job.manifest.batch(1), owner_of("worker-b"))
    step(keeper)  # and it hangs from now on, or acts no more
    assert api.patched == [("worker-a", "1")]


def test_workers_that_are_no_pods_are_asked_for_once(keeper, job, api, counted, caplog):
    announce(job.ledger, "gpu-host-1", "worker-a")
    for turn in range(4):
        if turn % 2:
            job.claim(job.manifest.batch(0), owner_of("gpu-host-1"))
        else:
            job.ledger.leases.release(job.manifest.batch(0), owner=owner_of("gpu-host-1"))
        step(keeper)
    assert counted == {"absent": 1, "set": 1}
    assert caplog.records == []


@pytest.mark.parametrize("name", ["a/../../nodes/b", "Host", "a_b", "", "..", "x?y", "é"])
def test_a_name_that_no_pod_has_is_not_asked_for(keeper, job, api, name):
    job.claim(job.manifest.batch(0), owner_of(name))
    job.ledger.redis.set(f"virnucpro:worker:cuda0-1@{name}", "{}")
    step(keeper)
    assert api.asked == []


def test_owners_of_an_odd_form_concern_neither_the_step_nor_others(keeper, job, api):
    job.claim(job.manifest.batch(0), "a")
    job.claim(job.manifest.batch(1), owner_of("worker-a"))
    key = f"virnucpro:job:{job.name}:owners"
    job.ledger.redis.hset(key, "7.fp16", "@worker-b")
    job.ledger.redis.hset(key, "8.fp16", "/")
    step(keeper)
    assert [api.cost(pod) for pod in PODS] == [1, 0, 0, 0]


def test_a_worker_is_named_after_its_pod():
    source = ModelSource("esm2_t6_8M_UR50D")
    worker = worker_info(source, "cpu", Rung.FP16, MessageKeys(), "worker-7c5d8-x2x4z", 0.0)
    assert pod_of(worker.name) == "worker-7c5d8-x2x4z"


# --- an API that fails --------------------------------------------------------------------------


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
        costs.look(["job"])
    assert api.asked == []
