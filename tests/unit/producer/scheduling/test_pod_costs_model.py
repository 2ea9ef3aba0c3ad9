"""Whatever workers, keepers and the API do, after a step the costs are what the ledger says."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from common.job.manifest import Manifest, write_manifest
from common.ledger.claims import ReleaseReason
from common.ledger.keys import batch_field, job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.ledger.workers import WorkerInfo
from common.model_source import ModelSource
from common.rungs import Rung
from common.store import FileStore
from common.wire.celery_app import make_celery
from common.wire.messages import Batch
from common.wire.redis_client import connect
from common.wire.signing import MessageKeys
from producer.scheduling import pod_costs as module
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import open_job
from producer.scheduling.pod_costs import PodCosts
from producer.scheduling.pods import Pods
from producer.scheduling.publisher import Publisher
from tests.support.jobs import manifest_of, ok
from tests.support.kubernetes_api import HOST, KubernetesApi, kubernetes_api
from tests.support.stores import folder_store
from workers.process.entry import worker_info

PODS = ("worker-a", "worker-b", "worker-c")

#: A worker that is no pod.
STRANGER = "gpu-host-1"

JOBS = ("one-0123456789ab", "two-0123456789ab")

BATCHES = 4

workers = st.sampled_from((*PODS, STRANGER))
jobs = st.sampled_from(JOBS)
indices = st.integers(0, BATCHES - 1)


def info_of(pod: str) -> WorkerInfo:
    return worker_info(ModelSource("dnabert_s"), "cpu", Rung.FP16, MessageKeys(), pod, 0.0)


class Costs(RuleBasedStateMachine):
    """Claims of workers, keepers that take over, and an API that fails now and then."""

    redis: Redis
    url: str
    store: FileStore
    api: KubernetesApi

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        self.ledger = Ledger(self.redis)
        self.claims: dict[str, tuple[str, Batch]] = {}  # by owner: its pod, and the batch
        self.number = 0
        self.api.pods.clear()
        self.api.add(*PODS)
        self.set_api()
        self.keeper = self.new_keeper()

    def new_keeper(self) -> Keeper:
        publisher = Publisher(self.ledger, make_celery(self.url, []), 100)
        keeper = Keeper(self.store, self.ledger, publisher)
        pods = Pods(HOST, self.api.port, self.api.account)
        keeper.pod_costs = PodCosts(self.ledger, keeper.one_by_one, pods)
        return keeper

    def set_api(self, status: int | None = None, *, is_lossy: bool = False) -> None:
        self.api.status, self.api.is_lossy = status, is_lossy

    @initialize()
    def open_jobs(self) -> None:
        for job in JOBS:
            manifest = self.manifest(job)
            write_manifest(self.store, manifest)
            open_job(self.store, self.ledger, self.keeper.publisher, manifest)

    def manifest(self, job: str) -> Manifest:
        return manifest_of([1] * BATCHES, job=job, created=datetime(2026, 1, 2, tzinfo=UTC))

    @rule(pod=workers, job=jobs, index=indices)
    def claim(self, pod: str, job: str, index: int) -> None:
        """Claim a batch, as a worker does once it has announced itself."""
        self.ledger.workers.announce(info_of(pod))
        self.number += 1
        owner, batch = f"cuda0-7@{pod}/{self.number:08x}", self.manifest(job).batch(index)
        self.ledger.leases.claim(batch, owner=owner, weights="w")
        self.claims[owner] = pod, batch

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=st.sampled_from(["release", "complete", "lapse"]))
    def end_claim(self, data: Any, end: str) -> None:
        owner = data.draw(st.sampled_from(sorted(self.claims)))
        _, batch = self.claims.pop(owner)
        if end == "release":
            self.ledger.leases.release(batch, owner=owner, reason=ReleaseReason.INTERRUPTED)
        elif end == "complete":
            self.ledger.results.complete(ok(batch), owner=owner)
        else:
            field = batch_field(batch.index, batch.rung)
            self.redis.zadd(f"{job_key(batch.job)}:leases", {field: 1}, xx=True)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self.ledger.jobs.cancel(job)

    @rule(job=jobs)
    def resume(self, job: str) -> None:
        self.ledger.jobs.resume(self.manifest(job), "retry")

    @rule(pod=workers)
    def announce(self, pod: str) -> None:
        self.ledger.workers.announce(info_of(pod))

    @rule(pod=workers, is_killed=st.booleans())
    def end_pod(self, pod: str, is_killed: bool) -> None:
        """End a pod: a later one has another name, so that it never comes back.

        Its worker leaves, unless it is killed.
        """
        self.api.pods.pop(pod, None)
        if not is_killed:
            self.ledger.workers.leave(info_of(pod))

    @rule()
    def take_over(self) -> None:
        self.keeper.stop()
        self.keeper = self.new_keeper()

    @rule(status=st.sampled_from([None, 401, 403, 409, 500, 503]))
    def step_while_the_api_fails(self, status: int | None) -> None:
        """Let the API refuse, or, with None, do what is asked and lose the answer."""
        self.set_api(status, is_lossy=status is None)
        self.step()
        self.set_api()

    @rule()
    def step_and_compare(self) -> None:
        self.step()
        busy = {
            owner.partition("@")[2].partition("/")[0]
            for job in JOBS
            if (progress := self.ledger.jobs.progress(job)) and progress.state is JobState.OPEN
            for owner in self.redis.hvals(f"{job_key(job)}:owners")
        }
        assert self.api.costs() == {pod: int(pod in busy) for pod in self.api.pods}

    def step(self) -> None:
        self.keeper.next_step = 0.0
        self.keeper.pod_costs._next_try = 0.0  # as if a step was later than the pause of a failure
        self.keeper.step()
        assert self.keeper.acting
        for thread in threading.enumerate():
            if thread.name == "pod costs":
                thread.join(10)
                assert not thread.is_alive()

    def teardown(self) -> None:
        self.step_and_compare()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    folder = tmp_path / "api"
    folder.mkdir()
    with kubernetes_api(folder) as running:
        yield running


def test_after_a_step_the_costs_are_what_the_ledger_says(api, redis_url, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    with connect(redis_url) as redis:
        shared = {
            "redis": redis,
            "url": redis_url,
            "store": folder_store(tmp_path / "store"),
            "api": api,
        }
        machine = type("SharedCosts", (Costs,), shared)
        phases = (Phase.reuse, Phase.generate)  # to shrink a failure takes longer than a test may
        options = settings(max_examples=40, stateful_step_count=25, deadline=None, phases=phases)
        run_state_machine_as_test(machine, settings=options)
