"""What a pool's pods may use: for each GPU, and for weights of each model."""

import pytest

from common.model_specs import MODELS
from tests.support.chart import HELMS, Object, pod_of, refused, render

RESOURCES = {
    "requests": {"cpu": "500m", "memory": "1.5Gi", "ephemeral-storage": "1Gi", "rdma/nic": 1},
    "limits": {"cpu": 2, "memory": 3_000_000_000},
}


def pod(helm: str = HELMS[0], **values: object) -> Object:
    pools = [{"name": "p", "model": "esm2_t33_650M_UR50D", **values}]
    return pod_of(render({"pools": pools}, helm=helm), "Deployment", "p")


def tmp_of(found: Object) -> str:
    [volume] = [volume for volume in found.spec["volumes"] if volume["name"] == "tmp"]
    return volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("helm", HELMS)
def test_a_pod_has_as_much_as_all_its_gpus_need(helm):
    many = pod(helm, gpu={"count": 8})
    resources = many.container("worker")["resources"]
    assert resources["requests"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": 8}
    assert resources["limits"] == {"memory": "128Gi", "nvidia.com/gpu": 8}
    assert tmp_of(many) == "16Gi"


@pytest.mark.parametrize("helm", HELMS)
def test_quantities_of_every_kind_are_multiplied_and_others_are_not(helm):
    found = pod(helm, gpu={"count": 4}, resources=RESOURCES, tmpSizeLimit="1.25Gi")
    resources = found.container("worker")["resources"]
    assert resources["requests"] == {
        "cpu": "2000m",
        "memory": "6Gi",
        "ephemeral-storage": "4Gi",
        "rdma/nic": 1,
        "nvidia.com/gpu": 4,
    }
    assert resources["limits"]["cpu"] == "8"
    assert float(resources["limits"]["memory"]) == 12e9
    assert tmp_of(found) == "5Gi"


@pytest.mark.parametrize("count", [0, 1])
def test_a_pod_with_one_gpu_or_none_has_what_is_written(count):
    found = pod(gpu={"count": count})
    resources = found.container("worker")["resources"]
    assert resources["requests"]["memory"] == "8Gi"
    assert tmp_of(found) == "2Gi"


def test_the_weights_are_downloaded_once_for_all_gpus():
    [init] = pod(gpu={"count": 8}).spec["initContainers"]
    assert init["resources"]["requests"] == {"cpu": "2", "memory": "8Gi"}


def test_weights_of_a_pool_have_room_of_their_own():
    def limit(found: Object) -> str:
        [volume] = [volume for volume in found.spec["volumes"] if volume["name"] == "weights"]
        return volume["emptyDir"]["sizeLimit"]

    assert limit(pod()) == "20Gi"
    assert limit(pod(weightsSizeLimit="80Gi")) == "80Gi"


@pytest.mark.parametrize("name", MODELS)
def test_the_chart_knows_how_large_the_weights_of_each_model_are(name):
    """The hub has them in FP32; a few are outside of the blocks."""
    exact = 4 * MODELS[name].parameters
    pools = [{"name": "p", "model": name, "weightsSizeLimit": int(exact)}]
    assert f"the weights of {name} take" in refused({"pools": pools})
    room = max(1.5 * exact, exact + 2e8) if exact < 1e9 else 1.1 * exact
    render({"pools": [{**pools[0], "weightsSizeLimit": int(room)}]})
