"""Values that do not fit together are refused, with a sentence that says what to change."""

import pytest

from tests.chart.parts import (
    EXTERNAL,
    NODE,
    ONE_NODE,
    ONE_NODE_WEIGHTS,
    S3,
    pool,
    submission,
    two_pools,
)
from tests.chart.refusals import REFUSED
from tests.support.chart import HELMS, KEDA, NAMESPACE, refused, render

#: What networkPolicy is without, the values that need it, and what the sentence begins with.
UNREACHABLE = {
    "dns": ({"dns": {"peers": []}}, {}, "networkPolicy.dns.peers is empty"),
    "store": ({"store": {"peers": []}}, {"store": S3}, "networkPolicy.store.peers is empty"),
    "weights in a bucket": (
        {"store": {"peers": []}},
        {"pools": [{"name": "p", "model": "s3://bucket/model"}]},
        "networkPolicy.store.peers is empty",
    ),
    "hub": ({"hub": {"peers": []}}, {}, "networkPolicy.hub.peers is empty"),
    "hub, for the hook": (
        {"hub": {"peers": []}},
        {"weights": {"source": "volume"}},
        "networkPolicy.hub.peers is empty",
    ),
    "credentials": (
        {"credentials": {"peers": []}, "node": {"peers": []}},
        {"store": S3},
        "networkPolicy.credentials.peers is empty",
    ),
    "a server of credentials that is named": (
        {"credentials": {"peers": []}},
        {"store": {**S3, "s3": {"webIdentity": {"roleArn": "r"}}}},
        "networkPolicy.credentials.peers is empty",
    ),
    "a server that a token of the account is for": (
        {"credentials": {"peers": []}},
        {"store": S3, "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "r"}}},
        "networkPolicy.credentials.peers is empty",
    ),
    "redis": ({"redis": {"peers": []}}, EXTERNAL, "networkPolicy.redis.peers is empty"),
    "apiServer": ({"apiServer": {"peers": []}}, {}, "networkPolicy.apiServer.peers is empty"),
    "keda": ({"keda": []}, {}, "networkPolicy.keda is empty"),
    "prometheus": (
        {"prometheus": []},
        {"monitoring": {"podMonitor": True}},
        "networkPolicy.prometheus is empty",
    ),
    "flower": (
        {"flower": []},
        {"flower": {"ingress": {"enabled": True, "host": "f.example"}}},
        "networkPolicy.flower is empty",
    ),
}


def problems(values, **cluster):
    """Return the sentences of a refusal."""
    message = refused(values, **cluster)
    assert "do not fit together" in message, message
    return [line[2:] for line in message.splitlines() if line.startswith("- ")]


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_with_one_sentence(what):
    values, sentence = REFUSED[what]
    [problem] = problems(values)
    assert sentence in problem
    assert problem.endswith(".")


@pytest.mark.parametrize("what", UNREACHABLE)
def test_a_connection_that_other_values_need_is_refused_to_be_closed(what):
    policy, values, sentence = UNREACHABLE[what]
    [problem] = problems({**values, "networkPolicy": policy})
    assert problem.startswith(sentence)
    render({**values, "networkPolicy": {**policy, "enabled": False}})


@pytest.mark.parametrize("helm", HELMS)
def test_all_of_it_is_said_at_once(helm):
    values = {
        "redis": {"tls": {"enabled": True}},
        "images": {"registry": "https://registry.example"},
        **pool(terminationGracePeriodSeconds=10),
    }
    assert len(problems(values, helm=helm)) == 3


#: Values that are near to others that are refused.
ACCEPTED = {
    "an external Redis without passwords": {
        "redis": {"enabled": False},
        "externalRedis": {"host": "redis.example", "authentication": "none"},
    },
    "S3 for weights alone": {
        "store": {"s3": {"existingSecret": "keys"}},
        **pool(model="s3://bucket/model"),
    },
    "S3 for an input alone": {"store": {"s3": {"existingSecret": "keys"}}, **submission()},
    "one pool that scales beside one that does not": two_pools({}, {"replicas": {"min": 4}}),
    "two pools of different precisions": two_pools({}, {"precision": "bf16"}),
    "two pools of different revisions": two_pools({}, {"revision": "main"}),
    "a volume of one node, where all pods are": {
        "store": ONE_NODE,
        "keeper": NODE,
        "submission": NODE,
        **pool(**NODE),
    },
    "weights on a volume of one node, where those are that use it": {
        "weights": ONE_NODE_WEIGHTS,
        "submission": NODE,
        **pool(**NODE),
    },
    "large weights, and room for them": pool(model="esm2_t48_15B_UR50D", weightsSizeLimit="65Gi"),
    "large weights, and room for them in bytes": pool(
        model="esm2_t48_15B_UR50D", weightsSizeLimit=70_000_000_000
    ),
    "large weights of the image": pool(model="esm2_t48_15B_UR50D", weightsSource="image"),
    "large weights in half of the memory, on a CPU": pool(
        model="random:esm2_t48_15B_UR50D",
        precision="bf16",
        gpu={"count": 0},
        resources={"limits": {"memory": "32Gi"}},
    ),
    "a claim whose modes are not known here": {
        "store": {"volume": {"existingClaim": "jobs", "accessModes": ["ReadWriteOnce"]}},
    },
    "little time, on spot nodes": pool(spot=True, terminationGracePeriodSeconds=20),
    "a registry with a port": {
        "images": {
            "registry": "registry.example:5000",
            "redis": {"repository": "registry.example:5000/valkey"},
        }
    },
    "files on a volume": {
        "submission": {"extraVolumeMounts": [{"name": "files", "mountPath": "/files"}]},
        **submission(input="/files/in.fasta", output="/files/out.h5"),
    },
    "a role of the node, not of a server": {
        "store": S3,
        "networkPolicy": {"credentials": {"peers": []}},
    },
    "an image that some nodes pull": {
        "prePull": {"enabled": True},
        **pool(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
    },
    "a volume that fits": {"redis": {"persistence": {"size": "1536Mi"}}},
    "memory that fits": {"redis": {"maxMemory": "1gb", "resources": {"limits": {"memory": "2G"}}}},
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_is_near_to_it_is_accepted(what):
    assert render(ACCEPTED[what], namespace=NAMESPACE)


POD = "v1/Pod"  # which every cluster knows, and `helm template` does not

#: Kinds that values need, and a part of the sentence.
KINDS = {
    "keda": ({}, KEDA, "the cluster has no KEDA: install it, or set the mode to hpa or none"),
    "pod monitors": (
        {"autoscaling": {"mode": "none"}, "monitoring": {"podMonitor": True}},
        "monitoring.coreos.com/v1",
        "monitoring.podMonitor is true, but the cluster has no operator of Prometheus",
    ),
    "rules": (
        {"autoscaling": {"mode": "none"}, "monitoring": {"rules": True}},
        "monitoring.coreos.com/v1",
        "monitoring.rules is true, but the cluster has no operator of Prometheus",
    ),
    "routes": (
        {
            "autoscaling": {"mode": "none"},
            "flower": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}},
        },
        "gateway.networking.k8s.io/v1",
        "the cluster has no Gateway API",
    ),
}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("what", KINDS)
def test_kinds_must_be_known_to_the_cluster_if_there_is_one(what, helm):
    values, kind, sentence = KINDS[what]
    [problem] = problems(values, helm=helm, api_versions=[POD])
    assert sentence in problem
    assert render(values, helm=helm, api_versions=[POD, kind])
    assert render(values, helm=helm, api_versions=[])
