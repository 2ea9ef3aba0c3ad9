"""Deletion costs: pods of busy workers have 1 and all others 0, and few requests are made."""

import pytest

from common.ledger.locks import KEEPING_SECONDS
from common.model_source import ModelSource
from common.rungs import Rung
from common.wire.signing import MessageKeys
from producer.scheduling import pod_costs as module
from producer.scheduling.pod_costs import pod_of
from tests.support.jobs import ok
from tests.support.kubernetes_api import api
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
from tests.support.processes import wait_until
from workers.process.entry import worker_info

PODS = [f"worker-{letter}" for letter in "abcd"]

__all__ = ["api", "counted", "keeper", "keeper_of", "without_pauses"]  # fixtures


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
        keeper.held_at -= KEEPING_SECONDS
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


def test_what_was_seen_long_ago_is_not_written(keeper, job, api):
    api.hang = 0.5
    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    job.claim(job.manifest.batch(1), owner_of("worker-b"))
    keeper.next_step = 0.0
    keeper.step()  # and it hangs from now on, or acts no more
    wait_until(lambda: api.asked, 10)
    keeper.pod_costs._held_at -= module.FRESH_SECONDS
    wait_for_requests()
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


def test_slow_steps_of_a_keeper_that_holds_its_lock_forget_nothing(keeper, job, api):
    announce(job.ledger, *PODS)
    step(keeper)
    keeper.held_at -= module.FRESH_SECONDS + 1  # and it was held all the time
    keeper._next_hold = 0.0
    step(keeper)
    assert len(api.patched) == len(PODS)


def test_a_keeper_that_looks_anew_begins_with_those_asked_for_longest_ago(keeper, job, api):
    announce(job.ledger, *PODS)
    step(keeper)
    keeper.pod_costs._tried["worker-a"] += 60
    keeper.held_at -= KEEPING_SECONDS
    keeper._next_hold = 0.0
    step(keeper)
    assert [pod for pod, _ in api.patched[4:]] == ["worker-b", "worker-c", "worker-d", "worker-a"]


def test_nothing_is_written_once_the_lock_was_renewed_long_ago(keeper, job, api):
    step(keeper)
    job.claim(job.manifest.batch(0), owner_of("worker-a"))
    keeper.held_at -= module.FRESH_SECONDS  # and it is not yet time to renew it
    step(keeper)
    assert api.asked == []
