"""Where the chart puts weights, who downloads them, and with what rights."""

from typing import Any

import pytest

from tests.support.chart import HELMS, Object, Pod, env_of, find, find_all, pod_of, render

GPU = {"name": "gpu", "model": "esm2_t33_650M_UR50D"}
BUCKET = {"name": "bucket", "model": "s3://weights/esm2"}
TOKEN = {"tokenSecret": "hub"}
ROLE = {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/fleet"}}


def worker_pod(pool: Object, **values: Any) -> Pod:
    return pod_of(render({"pools": [pool], **values}), "Deployment", pool["name"])


def mounted(container: Object) -> dict[str, bool]:
    """Return the paths of a container's mounts, and which are for reading only."""
    mounts = container["volumeMounts"]
    return {mount["mountPath"]: mount.get("readOnly", False) for mount in mounts}


def volume(*pools: Object, **values: Any) -> list[Object]:
    """Render pools whose weights are on the shared volume."""
    weights = {"source": "volume", "hub": TOKEN, **values.pop("weights", {})}
    return render({"pools": pools, "weights": weights, **values})


# --- download ------------------------------------------------------------------------------------


def test_a_pod_downloads_its_model_before_the_worker_starts():
    pod = worker_pod({**GPU, "revision": "v1.0"})
    assert pod.container("weights")["args"] == [
        *("download", "--model", GPU["model"], "--revision", "v1.0"),
    ]


@pytest.mark.parametrize(
    "model",
    ["random:esm2_t6_8M_UR50D", "/models/esm2", "file:///models/esm2", "models/tiny.pt", "./tiny"],
)
def test_what_needs_no_download_has_none(model):
    pod = worker_pod({**GPU, "model": model})
    assert "initContainers" not in pod.spec
    assert "/weights" not in mounted(pod.container("worker"))  # it may be a folder of the image


@pytest.mark.parametrize("model", ["facebook/esm2_t33_650M_UR50D", "s3://bucket/tiny.pt"])
def test_a_repository_of_the_hub_and_a_file_in_a_bucket_are_downloaded(model):
    pod = worker_pod({**GPU, "model": model})
    assert pod.container("weights")["args"][-1] == model


def test_only_the_download_has_the_hub_s_token_and_only_the_worker_the_fleet_s_secrets():
    pod = worker_pod(GPU, weights={"hub": TOKEN})
    download, worker = (env_of(pod.container(name)) for name in ("weights", "worker"))
    assert download["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "HF_TOKEN" not in worker
    assert not {"REDIS_PASSWORD", "VIRNUCPRO_MESSAGE_KEY"} & download.keys()


def test_only_a_download_from_a_bucket_has_the_store_s_credentials():
    s3 = {"store": {"url": "s3://fleet/a", "s3": {"existingSecret": "keys", "caSecret": "ca"}}}
    hub, bucket = (worker_pod(pool, **s3).container("weights") for pool in (GPU, BUCKET))
    assert "AWS_SECRET_ACCESS_KEY" in env_of(bucket)
    assert "/etc/virnucpro/store" in mounted(bucket)
    assert "AWS_SECRET_ACCESS_KEY" not in env_of(hub)
    assert "/etc/virnucpro/store" not in mounted(hub)


def test_no_download_mounts_the_folder_that_is_the_store():
    assert "/store" not in mounted(worker_pod(BUCKET).container("weights"))


@pytest.mark.parametrize("source", ["download", "volume", "image"])
def test_a_worker_never_asks_the_hub(source):
    pod = worker_pod(GPU, weights={"source": source})
    assert env_of(pod.container("worker"))["HF_HUB_OFFLINE"] == "1"


def test_weights_in_the_image_are_not_hidden_by_a_mount():
    pod = worker_pod(GPU, weights={"source": "image"})
    assert "initContainers" not in pod.spec
    assert "/weights" not in mounted(pod.container("worker"))


def test_a_pool_may_find_its_weights_elsewhere_than_the_others():
    other = {"name": "other", "model": "dnabert_s", "weightsSource": "image"}
    objects = render({"pools": [GPU, other]})
    assert "initContainers" in pod_of(objects, "Deployment", "gpu").spec
    assert "initContainers" not in pod_of(objects, "Deployment", "other").spec


# --- volume --------------------------------------------------------------------------------------


def test_workers_only_read_the_shared_volume():
    objects = volume(GPU)
    pod = pod_of(objects, "Deployment", "gpu")
    assert mounted(pod.container("worker"))["/weights"] is True
    [claim] = [v for v in pod.spec["volumes"] if v["name"] == "weights"]
    assert claim["persistentVolumeClaim"] == {
        "claimName": "virnucpro-fleet-weights",
        "readOnly": True,
    }


def test_a_hook_downloads_each_model_of_the_volume_s_pools_once():
    same = {**GPU, "name": "same", "replicas": {"min": 1, "max": 1}}
    pools = [GPU, same, {**GPU, "name": "old", "revision": "v1.0"}, BUCKET]
    others = [
        {"name": "random", "model": "random:esm2_t6_8M_UR50D"},
        {"name": "image", "model": "esm2_t6_8M_UR50D", "weightsSource": "image"},
    ]
    job = pod_of(volume(*pools, *others), "Job", "weights")
    models = [GPU["model"], f"{GPU['model']}@v1.0", BUCKET["model"]]
    assert job.container("weights")["args"] == models


def test_the_volume_is_filled_before_anything_of_the_release_is_there():
    for item in (find(volume(GPU), kind, "weights") for kind in ("Job", "PersistentVolumeClaim")):
        assert item["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


@pytest.mark.parametrize("policy", ["before-hook-creation", "hook-succeeded"])
def test_helm_never_deletes_the_volume(policy):
    annotations = find(volume(GPU), "PersistentVolumeClaim", "weights")["metadata"]["annotations"]
    policies = annotations["helm.sh/hook-delete-policy"].split(",")
    assert policies  # without any, the default is before-hook-creation
    assert policy not in policies


def test_a_claim_of_one_s_own_is_filled_and_not_made():
    objects = volume(GPU, weights={"volume": {"existingClaim": "ours"}})
    assert "weights" not in str([item["metadata"]["name"] for item in claims(objects)])
    volumes = pod_of(objects, "Job", "weights").spec["volumes"]
    assert {"claimName": "ours"} in [v.get("persistentVolumeClaim") for v in volumes]


def claims(objects: list[Object]) -> list[Object]:
    return find_all(objects, "PersistentVolumeClaim")


def jobs(objects: list[Object]) -> list[str]:
    return [item["metadata"]["name"] for item in find_all(objects, "Job")]


def test_a_volume_that_is_filled_already_is_only_read():
    objects = volume(GPU, weights={"volume": {"existingClaim": "ours", "fill": False}})
    assert "virnucpro-fleet-weights" not in jobs(objects)
    assert mounted(pod_of(objects, "Deployment", "gpu").container("worker"))["/weights"] is True


def test_there_is_no_volume_where_no_pool_reads_one():
    objects = render({"pools": [GPU]})
    assert "virnucpro-fleet-weights" not in jobs(objects)
    assert "virnucpro-fleet-weights" not in [item["metadata"]["name"] for item in claims(objects)]


# --- the hook's account --------------------------------------------------------------------------


def accounts(objects: list[Object], *, hooks: bool) -> list[Object]:
    found = [a for a in find_all(objects, "ServiceAccount") if a["metadata"]["name"] == ACCOUNT]
    return [a for a in found if ("helm.sh/hook" in str(a["metadata"].get("annotations"))) == hooks]


ACCOUNT = "virnucpro-fleet"


@pytest.mark.parametrize("helm", HELMS)
def test_a_hook_that_reads_a_bucket_by_a_role_brings_the_release_s_account_with_it(helm):
    values = {
        "pools": [BUCKET],
        "weights": {"source": "volume"},
        "store": {"url": "s3://fleet/a"},
        "serviceAccount": ROLE,
    }
    objects = render(values, helm=helm)
    assert pod_of(objects, "Job", "weights").spec["serviceAccountName"] == ACCOUNT
    [account] = accounts(objects, hooks=True)
    annotations = account["metadata"]["annotations"]
    assert ROLE["annotations"].items() <= annotations.items()
    job = find(objects, "Job", "weights")["metadata"]["annotations"]
    assert int(annotations["helm.sh/hook-weight"]) < int(job.get("helm.sh/hook-weight", "0"))


def test_the_account_comes_with_a_hook_whose_role_is_bound_to_it_elsewhere():
    """As EKS Pod Identity does it: nothing in the values says so."""
    objects = volume(BUCKET)
    assert pod_of(objects, "Job", "weights").spec["serviceAccountName"] == ACCOUNT
    assert len(accounts(objects, hooks=True)) == 1


def test_helm_lets_the_release_take_over_an_account_that_a_failed_hook_has_left():
    objects = volume(BUCKET, store={"url": "s3://fleet/a"}, serviceAccount=ROLE)
    [account] = accounts(objects, hooks=True)
    owner = {
        "meta.helm.sh/release-name": "virnucpro-fleet",
        "meta.helm.sh/release-namespace": "fleet",
    }
    assert owner.items() <= account["metadata"]["annotations"].items()
    assert account["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_a_hook_that_needs_no_role_needs_no_account():
    for objects in (
        volume(GPU, serviceAccount=ROLE),
        volume(BUCKET, store={"s3": {"existingSecret": "keys"}}),
    ):
        assert "serviceAccountName" not in pod_of(objects, "Job", "weights").spec
        assert accounts(objects, hooks=True) == []


def test_a_hook_uses_an_account_that_is_there():
    objects = volume(BUCKET, serviceAccount={"create": False, "name": "ours"})
    assert pod_of(objects, "Job", "weights").spec["serviceAccountName"] == "ours"
    assert accounts(objects, hooks=True) == []
