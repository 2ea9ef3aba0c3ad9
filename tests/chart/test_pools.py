"""Pools of workers: a Deployment each, what scales it, and what may disturb it."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from common.model_source import ModelSource
from producer.scheduling.demand_query import pool_of_query
from tests.support.chart import Object, env_of, find, find_all, pod_of, refused, render

GPU = {"name": "gpu", "model": "esm2_t33_650M_UR50D"}
CPU = {"name": "cpu", "model": "esm2_t6_8M_UR50D", "gpu": {"count": 0}, "tolerations": []}

MODELS = [
    {"model": "esm2_t33_650M_UR50D"},
    {"model": "facebook/esm2_t33_650M_UR50D"},
    {"model": "random:esm2_t6_8M_UR50D"},
    {"model": "esm2_t33_650M_UR50D", "revision": "refs/pr/1-a-long-name-of-a-branch"},
    {"model": "esm2_t33_650M_UR50D@v1.0"},
    {"model": "dnabert_s", "precision": "bf16"},
    {"model": "/models/my model"},
    {"model": "/models/esm2/"},
    {"model": "s3://bucket/models/esm2"},
    {"model": "s3://bucket/models/esm2/"},
]


def with_pool(pool: Object, **more: Any) -> list[Object]:
    """Render one pool; ``more`` differs from what GPU has."""
    return render({"pools": [{**pool, **more}]})


def worker_of(pool: Object, **more: Any) -> Object:
    return pod_of(with_pool(pool, **more), "Deployment", pool["name"]).container("worker")


def spec_of(pool: Object, **more: Any) -> Object:
    return pod_of(with_pool(pool, **more), "Deployment", pool["name"]).spec


def source_of(pool: Object) -> ModelSource:
    return ModelSource.parse(pool["model"], pool.get("revision"))


# --- what a worker is started with ---------------------------------------------------------------


def test_a_pool_s_worker_requires_its_gpus():
    container = worker_of(GPU, gpu={"count": 2})
    assert container["args"][-2:] == ["--gpus", "required"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["resources"]["requests"]["nvidia.com/gpu"] == 2


def test_a_pool_without_gpus_runs_the_image_for_cpus_and_asks_for_none():
    container = worker_of(CPU)
    assert container["args"][-2:] == ["--gpus", "none"]
    assert container["image"].endswith("-cpu")
    assert container["resources"]["limits"] == {"memory": "16Gi"}


def test_a_part_of_a_gpu_is_asked_for_by_its_own_resource():
    limits = worker_of(GPU, gpu={"resource": "nvidia.com/mig-1g.10gb"})["resources"]["limits"]
    assert limits == {"memory": "16Gi", "nvidia.com/mig-1g.10gb": 1}


def test_a_claim_of_dynamic_resource_allocation_takes_the_place_of_the_resource():
    spec = spec_of(GPU, gpu={"claimTemplate": "one-h100"})
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-h100"}]
    resources = spec["containers"][0]["resources"]
    assert resources["claims"] == [{"name": "gpu"}]
    assert "nvidia.com/gpu" not in {**resources["limits"], **resources["requests"]}


def test_a_cluster_that_is_too_old_for_claims_is_refused():
    said = refused({"pools": [{**GPU, "gpu": {"claimTemplate": "a"}}]}, kube_version="1.31.0")
    assert "gpu.claimTemplate needs Kubernetes 1.32 or newer, and this is v1.31.0" in said


def test_options_of_a_pool_are_arguments_of_its_worker():
    pool = {**GPU, "revision": "v1.0", "precision": "bf16", "gpu": {"memory": 40}}
    args = worker_of(pool, extraArgs=["--max-device-losses", "5"])["args"]
    assert args[:5] == ["start", "--model", GPU["model"], "--precision", "bf16"]
    assert args[7:] == [
        *("--revision", "v1.0", "--gpu-memory", "40"),
        *("--max-device-losses", "5"),
    ]


def test_a_pool_s_own_variables_and_volumes_are_added():
    spec = spec_of(
        GPU,
        extraEnv=[{"name": "VIRNUCPRO_DISABLE_FP16", "value": "1"}],
        extraVolumes=[{"name": "models", "emptyDir": {}}],
        extraVolumeMounts=[{"name": "models", "mountPath": "/models"}],
    )
    [container] = spec["containers"]
    assert env_of(container)["VIRNUCPRO_DISABLE_FP16"] == "1"
    assert {"name": "models", "emptyDir": {}} in spec["volumes"]
    assert {"name": "models", "mountPath": "/models"} in container["volumeMounts"]


def test_an_image_of_a_pool_s_own_takes_precedence():
    container = worker_of(GPU, image={"repository": "registry.example/mine", "tag": "7"})
    assert container["image"] == "registry.example/mine:7"


def test_a_worker_is_named_as_its_pod():
    name = env_of(worker_of(GPU))["VIRNUCPRO_WORKER_NAME"]
    assert name == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_what_a_pool_does_not_say_is_in_the_defaults():
    values = {"pools": [GPU], "poolDefaults": {"runtimeClassName": "nvidia"}}
    assert pod_of(render(values), "Deployment", "gpu").spec["runtimeClassName"] == "nvidia"


# --- how it ends, moves and is replaced ----------------------------------------------------------


def test_a_worker_has_longer_to_end_than_it_needs_to_requeue_its_batches():
    assert spec_of(GPU)["terminationGracePeriodSeconds"] == 45


def test_a_worker_on_a_spot_node_ends_before_the_node_does():
    assert spec_of(GPU, spot=True)["terminationGracePeriodSeconds"] == 25


def test_a_worker_of_a_spot_pool_tolerates_the_clouds_taints_besides_its_own():
    keys = [toleration["key"] for toleration in spec_of(GPU, spot=True)["tolerations"]]
    assert keys[0] == "nvidia.com/gpu"
    assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= {*keys}


def test_no_worker_moves_to_spare_a_node_except_on_spot_nodes():
    annotations = pod_of(with_pool(GPU), "Deployment", "gpu").metadata["annotations"]
    assert annotations == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    annotations = pod_of(with_pool(GPU, spot=True), "Deployment", "gpu").metadata["annotations"]
    assert annotations == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}


@pytest.mark.parametrize("where", ["pool", "chart"])
def test_annotations_of_one_s_own_take_precedence(where):
    own = {"podAnnotations": {"karpenter.sh/do-not-disrupt": "false"}}
    pool, chart = (own, {}) if where == "pool" else ({}, own)
    objects = render({"pools": [{**GPU, **pool}], **chart})
    annotations = pod_of(objects, "Deployment", "gpu").metadata["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "false"


def test_a_rollout_needs_no_gpu_beyond_those_that_the_pool_has():
    strategy = find(with_pool(GPU), "Deployment", "gpu")["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxSurge"] == 0


def test_a_drain_takes_as_many_workers_as_the_pool_says():
    objects = with_pool(GPU, maxUnavailable="50%")
    budget = find(objects, "PodDisruptionBudget", "gpu")["spec"]
    assert budget["maxUnavailable"] == "50%"
    selector = find(objects, "Deployment", "gpu")["spec"]["selector"]
    assert budget["selector"] == selector


def test_pools_do_not_select_the_workers_of_others():
    objects = render({"pools": [GPU, CPU]})
    pod = pod_of(objects, "Deployment", "cpu")
    theirs = find(objects, "Deployment", "gpu")["spec"]["selector"]["matchLabels"]
    own = find(objects, "Deployment", "cpu")["spec"]["selector"]["matchLabels"]
    assert own.items() <= pod.labels.items()
    assert not theirs.items() <= pod.labels.items()


def test_workers_spread_over_nodes_unless_the_pool_says_how():
    [constraint] = spec_of(GPU)["topologySpreadConstraints"]
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    own = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    assert spec_of(GPU, topologySpreadConstraints=[own])["topologySpreadConstraints"] == [own]


# --- what scales it ------------------------------------------------------------------------------


def trigger_of(pool: Object) -> Object:
    [trigger] = find(with_pool(pool), "ScaledObject", pool["name"])["spec"]["triggers"]
    return dict(trigger["metadata"])


@pytest.mark.parametrize("mode", ["keda", "hpa"])
def test_a_deployment_that_something_scales_names_no_number_of_pods(mode):
    pool = {**GPU, "replicas": {"min": 1, "max": 4}}
    objects = render({"pools": [pool], "autoscaling": {"mode": mode}})
    assert "replicas" not in find(objects, "Deployment", "gpu")["spec"]
    kind = {"keda": "ScaledObject", "hpa": "HorizontalPodAutoscaler"}[mode]
    scaler = find(objects, kind, "gpu")["spec"]
    assert (
        scaler["scaleTargetRef"]["name"] == find(objects, "Deployment", "gpu")["metadata"]["name"]
    )


def test_a_pool_whose_bounds_are_equal_has_a_fixed_number_of_pods():
    objects = with_pool(GPU, replicas={"min": 3, "max": 3})
    assert find(objects, "Deployment", "gpu")["spec"]["replicas"] == 3
    assert find_all(objects, "ScaledObject") == []


def test_without_autoscaling_there_are_as_many_pods_as_may_be():
    objects = render({"pools": [GPU], "autoscaling": {"mode": "none"}})
    assert find(objects, "Deployment", "gpu")["spec"]["replicas"] == 4
    assert not find_all(objects, "ScaledObject") + find_all(objects, "HorizontalPodAutoscaler")


@pytest.mark.parametrize("pool", MODELS, ids=lambda pool: pool["model"])
def test_keda_asks_the_keeper_for_the_demand_of_the_pool(pool):
    url = urlsplit(trigger_of({"name": "a", **pool})["url"])
    assert (url.netloc, url.path) == ("virnucpro-fleet-keeper.fleet.svc:9808", "/demand")
    asked = pool_of_query(dict(parse_qsl(url.query, strict_parsing=True)))
    assert asked == f"{source_of(pool).queue}.{pool.get('precision', 'fp16')}"


def test_keda_asks_for_all_precisions_for_workers_that_take_jobs_of_all():
    url = urlsplit(trigger_of(CPU)["url"])
    assert pool_of_query(dict(parse_qsl(url.query))) == "esm2_t6_8M_UR50D"


def test_an_unknown_demand_ends_no_pod_and_leaves_one_at_least():
    fallback = find(with_pool(GPU), "ScaledObject", "gpu")["spec"]["fallback"]
    assert (fallback["replicas"], fallback["behavior"]) == (1, "currentReplicasIfHigher")
    more = find(with_pool(GPU, replicas={"min": 2}), "ScaledObject", "gpu")["spec"]
    assert more["fallback"]["replicas"] == more["minReplicaCount"] == 2


def test_a_paused_pool_keeps_its_pods():
    paused = find(with_pool(GPU, paused=True), "ScaledObject", "gpu")["metadata"]
    assert paused["annotations"] == {"autoscaling.keda.sh/paused": "true"}
    assert "annotations" not in find(with_pool(GPU), "ScaledObject", "gpu")["metadata"]


def hpa_of(pool: Object) -> Object:
    scaled = {**pool, "replicas": {"min": 1, "max": 4}}
    objects = render({"pools": [scaled], "autoscaling": {"mode": "hpa"}})
    return dict(find(objects, "HorizontalPodAutoscaler")["spec"])


def test_an_hpa_keeps_to_the_pool_s_bounds():
    spec = hpa_of(GPU)
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)


def test_an_hpa_of_a_paused_pool_scales_neither_up_nor_down():
    behavior = hpa_of({**GPU, "paused": True})["behavior"]
    assert {behavior[way]["selectPolicy"] for way in ("scaleUp", "scaleDown")} == {"Disabled"}


@pytest.mark.parametrize("pool", MODELS, ids=lambda pool: pool["model"])
def test_an_hpa_reads_the_metric_of_the_pool_as_keepers_name_it(pool):
    [metric] = hpa_of({"name": "a", **pool})["metrics"]
    name = f"{source_of(pool).queue}.{pool.get('precision', 'fp16')}"
    assert metric["external"]["metric"] == {
        "name": "virnucpro_demand_batches",
        "selector": {"matchLabels": {"pool": name}},
    }


def test_an_hpa_adds_the_demands_of_all_precisions_for_workers_that_take_them():
    [metric] = hpa_of(CPU)["metrics"]
    [expression] = metric["external"]["metric"]["selector"]["matchExpressions"]
    rungs = ("fp16", "bf16", "fp32")
    assert expression["values"] == [f"esm2_t6_8M_UR50D.{rung}" for rung in rungs]
