"""What submissions, hooks and ``helm test`` share: where they run, and behind which proxy."""

import pytest

from tests.support.chart import HELMS, Pod, env_of, pods, render

PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"own": 1}}}
VALUES = {
    "weights": {"source": "volume"},
    "submissions": [{"name": "one", "input": "s3://bucket/one.fasta"}],
}


def ending(**submission) -> list[Pod]:
    """Return the pods that end by themselves."""
    objects = render({**VALUES, "submission": submission})
    found = [pod for pod in pods(objects) if pod.component in ("submission", "hook")]
    assert {pod.label.rpartition("-")[2] for pod in found} == {"one", "test", "init", "weights"}
    return found


def test_each_has_the_variables_that_are_given():
    for pod in ending(extraEnv=[PROXY]):
        [container] = pod.containers()
        assert env_of(container)["HTTPS_PROXY"] == PROXY["value"], pod.label


def test_each_has_the_annotations_affinity_and_priority_that_are_given():
    given = {"podAnnotations": {"mesh.example/inject": "no"}, "affinity": AFFINITY}
    for pod in ending(priorityClassName="low", **given):
        assert pod.metadata["annotations"]["mesh.example/inject"] == "no", pod.label
        assert (pod.spec["affinity"], pod.spec["priorityClassName"]) == (AFFINITY, "low"), pod.label


@pytest.mark.parametrize("helm", HELMS)
def test_the_hook_of_weights_has_the_variables_of_the_pools_whose_weights_it_downloads(helm):
    """Each once, as a server that merges lists by name asks for."""
    pools = [
        {"name": "a", "model": "dnabert_s", "extraEnv": [{"name": "OF_A", "value": "1"}, PROXY]},
        {"name": "b", "model": "esm2_t6_8M_UR50D"},
        {"name": "c", "model": "m", "weightsSource": "image", "extraEnv": [{"name": "C"}]},
    ]
    hooks = {"extraEnv": [{**PROXY, "value": "http://other.example:3128"}]}
    defaults = {"extraEnv": [{"name": "OF_ALL", "value": "2"}]}
    values = {**VALUES, "pools": pools, "poolDefaults": defaults, "submission": hooks}
    [pod] = [pod for pod in pods(render(values, helm=helm)) if pod.label.endswith("fleet-weights")]
    variables = env_of(pod.container("weights"))
    assert (variables["OF_A"], variables["OF_ALL"]) == ("1", "2")
    assert variables["HTTPS_PROXY"] == "http://other.example:3128"
    assert "C" not in variables
