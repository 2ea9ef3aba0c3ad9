"""Keepers that set deletion costs at the double of Kubernetes' API."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from common.job.manifest import write_manifest
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.rungs import Rung
from common.wire.signing import MessageKeys
from producer.scheduling import pod_costs as module
from producer.scheduling.keeper import Keeper
from producer.scheduling.pod_costs import PodCosts
from producer.scheduling.pods import Pods
from tests.support.kubernetes_api import HOST, KubernetesApi
from tests.support.staged import Job
from workers.process.entry import worker_info


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


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
