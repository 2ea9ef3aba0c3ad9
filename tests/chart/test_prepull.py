"""The pods that have nodes pull the images of pools ahead."""

from tests.support.chart import find, find_all, pod_of, render

GPU = {"name": "gpu", "model": "esm2_t33_650M_UR50D"}


def test_nodes_of_a_pool_pull_its_image_ahead_without_a_gpu():
    pool = {**GPU, "nodeSelector": {"gpu": "h100"}}
    objects = render({"pools": [pool], "prePull": {"enabled": True}})
    ahead, worker = pod_of(objects, "DaemonSet"), pod_of(objects, "Deployment", "gpu")
    [container] = ahead.containers()
    assert container["image"] == worker.container("worker")["image"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    for field in ("nodeSelector", "tolerations"):
        assert ahead.spec[field] == worker.spec[field]


def test_a_pod_that_pulls_ahead_fits_into_a_quota_of_requests_and_limits():
    values = {"poolDefaults": {"nodeSelector": {"gpu": "h100"}}, "prePull": {"enabled": True}}
    [container] = pod_of(render(values), "DaemonSet").containers()
    for which in ("requests", "limits"):
        assert {"cpu", "memory"} <= container["resources"][which].keys()


def test_a_pod_that_pulls_ahead_is_no_worker_to_anything_that_selects_workers():
    pool = {**GPU, "nodeSelector": {"gpu": "h100"}}
    objects = render({"pools": [pool], "prePull": {"enabled": True}})
    selector = find(objects, "Deployment", "gpu")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod_of(objects, "DaemonSet").labels.items()


def test_images_are_not_pulled_ahead_unless_it_is_asked_for():
    assert find_all(render(), "DaemonSet") == []
