"""Every value, if changed, changes what is rendered; a pool may have each of ``poolDefaults``."""

import copy
from typing import Any

import pytest

from tests.chart.cases import SCALING, without_random
from tests.chart.describe import Value, resolved, schema, values
from tests.support.chart import render

S3 = {
    "store": {
        "url": "s3://bucket/fleet",
        "s3": {"webIdentity": {"roleArn": "arn:aws:iam::111122223333:role/fleet"}},
    }
}
NODE = {"store": {"url": "s3://bucket/fleet"}, "serviceAccount": {"create": False}}
EXTERNAL = {
    "redis": {"enabled": False},
    "externalRedis": {"host": "redis.example", "tls": {"enabled": True}},
    "secrets": {"existingSecret": "fleet-secrets"},
}
ON_SOME_NODES = {"poolDefaults": {"nodeSelector": {"gpu": "h100"}}}
SUBMISSIONS = {"submissions": [{"name": "one", "input": "s3://bucket/one.fasta"}]}

#: What must be on for values whose names begin so. The longest beginning counts.
CONTEXTS: dict[str, dict[str, Any]] = {
    "": {},
    "images.workerCpu": {"poolDefaults": {"gpu": {"count": 0}}},
    "redis.tls.existingSecret": {"redis": {"tls": {"enabled": True, "existingSecret": "tls"}}},
    "externalRedis": EXTERNAL,
    "externalRedis.tls.enabled": {**EXTERNAL, "externalRedis": {"host": "redis.example"}},
    "store.s3": S3,
    "store.s3.existingSecret": {"store": {"url": "s3://bucket/fleet"}},
    "store.s3.webIdentity.roleArn": {"store": {"url": "s3://bucket/fleet"}},
    "prePull": {**ON_SOME_NODES, "prePull": {"enabled": True}},
    "prePull.enabled": ON_SOME_NODES,
    "weights.volume": {"weights": {"source": "volume"}},
    "weights.volume.fill": {"weights": {"source": "volume", "volume": {"existingClaim": "full"}}},
    "poolDefaults.model": {"pools": [{"name": "own"}], "poolDefaults": {"model": "dnabert_s"}},
    "autoscaling.hpaMetric": dict(SCALING["hpa"]),
    "flower.ingress": {"flower": {"ingress": {"enabled": True, "host": "fleet.example"}}},
    "flower.ingress.enabled": {"flower": {"ingress": {"host": "fleet.example"}}},
    "flower.httpRoute": {
        "flower": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}}
    },
    "flower.httpRoute.enabled": {"flower": {"httpRoute": {"parentRefs": [{"name": "gateway"}]}}},
    "submission": SUBMISSIONS,
    "submissions": {},
    "networkPolicy.store": S3,
    "networkPolicy.credentials": S3,
    "networkPolicy.node": NODE,
    "networkPolicy.redis.": EXTERNAL,
    "monitoring.interval": {"monitoring": {"podMonitor": True}},
    "monitoring.dashboardLabel": {"monitoring": {"dashboard": True}},
    "monitoring.runbook": {"monitoring": {"rules": True}},
    "monitoring.labels": {"monitoring": {"podMonitor": True}},
}

#: What must change with a value.
WITH: dict[str, dict[str, Any]] = {
    "redis.enabled": EXTERNAL,
    "redis.tls.enabled": {"redis": {"tls": {"existingSecret": "redis-tls"}}},
}

#: Another value, where none can be made from the type.
SAMPLES: dict[str, Any] = {
    "pools": [{"name": "dna", "model": "dnabert_s"}],
    "submissions": SUBMISSIONS["submissions"],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own"}}],
    "store.url": "s3://bucket/fleet",
    "store.volume.accessModes": ["ReadWriteMany", "ReadOnlyMany"],
    "weights.volume.accessModes": ["ReadWriteMany", "ReadOnlyMany"],
    "autoscaling.mode": "none",
    "redis.maxMemory": "64mb",
    "listenAddress": "::",
    "monitoring.interval": "90s",
    "podSecurityContext": {"runAsUser": 4321},
    "containerSecurityContext": {"privileged": False},
    "poolDefaults.weightsSource": "volume",
    "poolDefaults.image": {"tag": "own"},
    "poolDefaults.maxUnavailable": "25%",
    "poolDefaults.extraVolumes": [{"name": "own", "emptyDir": {}}],
    "poolDefaults.extraVolumeMounts": [{"name": "tmp", "mountPath": "/own"}],
    "submission.extraVolumes": [{"name": "own", "emptyDir": {}}],
    "submission.extraVolumeMounts": [{"name": "tmp", "mountPath": "/own"}],
}

#: Another value of each definition of the schema.
OF_DEFINITIONS: dict[str, Any] = {
    "nameOrEmpty": "another",
    "tag": "another",
    "digest": "sha256:" + "0" * 64,
    "address": "https://another.example:4321",
    "quantity": "7Gi",
    "quantityOrEmpty": "7Gi",
    "port": 4321,
    "ports": [4321],
    "numberOrNull": 4321,
    "texts": {"example.com/own": "yes"},
    "resources": {"limits": {"memory": "7Gi"}},
    "object": {"nodeAffinity": {}},
    "objects": [{"key": "own", "operator": "Exists"}],
    "variables": [{"name": "OWN", "value": "yes"}],
}

ALL = values()


def another(value: Value) -> Any:
    """Return another value than the default, by its type."""
    if value.name in SAMPLES:
        return SAMPLES[value.name]
    node = schema_of(value)
    if "$ref" in node:
        return OF_DEFINITIONS[node["$ref"].rpartition("/")[2]]
    if "enum" in node:
        return next(text for text in node["enum"] if text not in ("", value.default))
    match node["type"]:
        case "boolean":
            return not value.default
        case "integer" | "number":
            return value.default + 1
        case "array":
            return ["another"]
    return "another"


def schema_of(value: Value) -> dict[str, Any]:
    root = schema()
    node = root
    for name in value.path:
        node = resolved(root, node)["properties"][name]
    return node


def context(name: str) -> dict[str, Any]:
    longest = max((start for start in CONTEXTS if name.startswith(start)), key=len)
    return copy.deepcopy(CONTEXTS[longest])


def with_value(base: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(base)
    at = found
    for name in path[:-1]:
        at = at.setdefault(name, {})
    at[path[-1]] = value
    return found


@pytest.mark.parametrize("value", ALL, ids=lambda value: value.name)
def test_a_changed_value_changes_what_is_rendered(value: Value):
    base = context(value.name)
    changed = with_value(WITH.get(value.name, base), value.path, another(value))
    assert without_random(render(changed)) != without_random(render(base))


@pytest.mark.parametrize(
    "value",
    [value for value in ALL if value.path[0] == "poolDefaults"],
    ids=lambda value: value.name,
)
def test_a_pool_may_have_each_value_of_the_defaults(value: Value):
    pool = {"name": "own"} if value.name == "poolDefaults.model" else {"name": "own", "model": "m"}
    by_default = with_value({"pools": [pool]}, value.path, another(value))
    by_pool = {"pools": [with_value(pool, value.path[1:], another(value))]}
    assert without_random(render(by_default)) == without_random(render(by_pool))
