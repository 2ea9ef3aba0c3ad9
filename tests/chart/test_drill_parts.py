"""The drill's own parts: whom a ReplicaSet ends first, and what counts as wrong."""

import time

from tests.chart.drill.kubelet import Pod
from tests.chart.drill.manifests import Probe, template_of
from tests.chart.drill.replicaset import COST, ranked
from tests.support.chart import render

POOL = {"name": "small", "model": "random:esm2_t6_8M_UR50D", "gpu": {"count": 0}}


def pod(name: str, *, ready: float | None = None, cost: int = 0, created: float = 1.0) -> Pod:
    """Return a pod that has been ready for some seconds, or is not, and was made so long ago."""
    now = time.monotonic()
    template = template_of(render({"pools": [POOL]}), "Deployment", "small", "worker")
    found = Pod(name, template, lambda: None, 0, lambda _look: None, created=now - created)
    found.ready, found.ready_at = ready is not None, now - (ready or 0)
    found.annotations[COST] = str(cost)
    return found


def order(*pods: Pod) -> list[str]:
    return [one.name for one in ranked(pods, time.monotonic())]


def test_a_pod_that_is_not_ready_ends_before_one_that_is():
    assert order(pod("a", ready=5), pod("b", cost=1)) == ["b", "a"]


def test_an_idle_pod_ends_before_a_busy_one_however_long_it_is_there():
    assert order(pod("a", ready=5, cost=1), pod("b", ready=5000)) == ["b", "a"]


def test_a_pod_that_was_just_ready_ends_before_one_that_is_for_long():
    assert order(pod("a", ready=5000), pod("b", ready=5)) == ["b", "a"]


def test_pods_of_about_the_same_age_end_in_any_order():
    """Ages count by their magnitude, as a cluster's do: names stand for what is random there."""
    assert order(pod("b", ready=5.1), pod("a", ready=6.0)) == ["a", "b"]


def test_probes_are_those_of_the_chart():
    template = template_of(render({"pools": [POOL]}), "Deployment", "small", "worker")
    assert template.readiness is not None
    assert template.readiness.timeout > Probe().timeout
    assert template.environment("pod-7")["VIRNUCPRO_WORKER_NAME"] == "pod-7"
    assert template.grace >= 45
