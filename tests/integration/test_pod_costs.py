"""``producer keeper --pod-costs``: the pod of a real worker costs more while it has batches."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.local.processes import start_dependent, stop
from tests.support.http import free_address, metrics_at
from tests.support.kubernetes_api import HOST, KubernetesApi, api
from tests.support.processes import START_SECONDS, Fleet, is_ready, running_worker, wait_until

PODS = ["worker-busy", "worker-idle"]

__all__ = ["api"]  # a fixture

OUTCOMES = 'virnucpro_keeper_pod_costs_total{{outcome="{}"}}'


@pytest.fixture
def keeper(fleet: Fleet, api: KubernetesApi, tmp_path: Path) -> Iterator[str]:
    """The address of a keeper that has what Kubernetes gives a pod."""
    address, log = free_address(), tmp_path / "keeper.log"
    environment = {
        **fleet.environment,
        "VIRNUCPRO_POD_COSTS": "1",
        "VIRNUCPRO_METRICS": address,
        "KUBERNETES_SERVICE_HOST": HOST,
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "SERVICE_ACCOUNT": str(api.account),
    }
    command = [sys.executable, "-m", "tests.support.pod_keeper", "keeper"]
    with log.open("wb") as output:
        process = start_dependent(command, env=environment, output=output)
    try:
        wait_until(lambda: "Keeping the jobs of" in log.read_text(), START_SECONDS)
        yield address
    finally:
        code = stop(process, 40)
    text = log.read_text()
    assert code == 0, text
    assert "Warning" not in text
    assert api.token not in text


def test_the_pod_of_a_worker_costs_more_from_its_first_batch_to_its_last(
    fleet, api, keeper, tiny, disprot, tmp_path
):
    with ExitStack() as stack:
        for name, model in zip(PODS, (tiny, "random:esm2_t6_8M_UR50D"), strict=True):
            environment = {**fleet.environment, "VIRNUCPRO_WORKER_NAME": name}
            stack.enter_context(running_worker(model, tmp_path / f"{name}.log", environment))
        wait_until(
            lambda: [is_ready(worker) for worker in fleet.ledger.workers.all()] == [True, True],
            START_SECONDS,
        )
        done = fleet.producer("submit", disprot, "--model", tiny, "--batch-tokens=4000")
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        wait_until(lambda: api.costs() == {"worker-busy": 1, "worker-idle": 0}, 60)
        wait_until(lambda: fleet.ledger.jobs.progress(job).finished, 200)
        wait_until(lambda: api.costs() == {"worker-busy": 0, "worker-idle": 0}, 20)
    values = metrics_at(keeper)
    assert values[OUTCOMES.format("set")] == len(api.patched)
    assert values[OUTCOMES.format("failed")] == values[OUTCOMES.format("absent")] == 0
    assert set(api.asked) == {f"PATCH /api/v1/namespaces/fleet/pods/{pod}/status" for pod in PODS}


def test_outside_of_a_pod_the_option_is_refused(fleet):
    for variables, words in (({}, ["--pod-costs"]), ({"VIRNUCPRO_POD_COSTS": "1"}, [])):
        environment = {**fleet.environment, **variables}
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        done = Fleet("", "", environment).producer("keeper", *words)
        assert done.returncode == 2
        assert "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set" in done.stderr
