"""Every value has a type, and no other value is accepted."""

import itertools
from typing import Any

import pytest
import yaml

from tests.chart.describe import resolved, schema
from tests.support.chart import (
    HELMS,
    example,
    find,
    pod_of,
    pods,
    refused,
    render,
)

SCHEMA_NOW = schema()


def maps(node: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the paths of all maps that refuse keys which they do not know."""
    node = resolved(SCHEMA_NOW, node)
    if node.get("additionalProperties") is not False:
        return []
    below = node.get("properties", {}).items()
    return [above, *(path for key, value in below for path in maps(value, (*above, key)))]


def put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Put a value into nested maps, at a path."""
    at = tree
    for name in path[:-1]:
        at = at.setdefault(name, {})
    at[path[-1]] = value
    return tree


@pytest.mark.parametrize("helm", HELMS)
def test_a_misspelt_value_is_refused_in_every_map(helm):
    paths = maps(SCHEMA_NOW)
    assert len(paths) > 40
    wrong: dict[str, Any] = {}
    for number, path in enumerate(paths):
        put(wrong, (*path, f"misspelt{number}x"), 1)
    message = refused(wrong, helm=helm)
    assert [path for number, path in enumerate(paths) if f"misspelt{number}x" not in message] == []


@pytest.mark.parametrize("helm", HELMS)
def test_a_misspelt_value_of_a_pool_or_submission_is_refused(helm):
    pool = {"name": "a", "model": "dnabert_s"}
    submission = {"name": "a", "input": "s3://bucket/a.fasta"}
    assert "modell" in refused({"pools": [pool | {"modell": "b"}]}, helm=helm)
    assert "maximum" in refused({"pools": [pool | {"replicas": {"maximum": 1}}]}, helm=helm)
    assert "inputs" in refused({"submissions": [submission | {"inputs": "b"}]}, helm=helm)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"log": {"level": "loud"}}, "level"),
    ({"keeper": {"replicas": 0}}, "replicas"),
    ({"keeper": {"replicas": "2"}}, "replicas"),
    ({"store": {"url": "/data"}}, "url"),
    ({"store": {"s3": {"endpoint": "s3.example"}}}, "endpoint"),
    ({"redis": {"maxMemory": "1Gi"}}, "maxMemory"),
    ({"redis": {"resources": {"limits": {"memory": "much"}}}}, "memory"),
    ({"externalRedis": {"port": 65536}}, "port"),
    ({"images": {"producer": {"digest": "sha256:short"}}}, "digest"),
    ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"pools": [{"model": "dnabert_s"}]}, "name"),
    ({"pools": [{"name": "Big", "model": "dnabert_s"}]}, "name"),
    ({"pools": [{"name": "a", "model": "dnabert_s", "precision": "fp8"}]}, "precision"),
    ({"poolDefaults": {"name": "a"}}, "name"),
    ({"poolDefaults": {"extraEnv": [{"value": "a"}]}}, "name"),
    ({"poolDefaults": {"maxUnavailable": "half"}}, "maxUnavailable"),
    ({"autoscaling": {"scaleDownWindow": 7200}}, "scaleDownWindow"),
    ({"weights": {"source": "hub"}}, "source"),
    ({"secrets": {"existingSecret": "With Spaces"}}, "existingSecret"),
    ({"monitoring": {"interval": "30"}}, "interval"),
]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=str)
def test_a_wrong_value_is_refused_by_name(helm, wrong, message):
    text = refused(wrong, helm=helm)
    assert "meet the specifications of the schema" in text
    assert message in text


@pytest.mark.parametrize("helm", HELMS)
def test_the_pool_of_parts_of_gpus_in_a_comment_may_take_the_other_s_place(helm):
    lines = example("one-node").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  # - name:"))
    block = itertools.takewhile(lambda line: line.startswith("  # "), lines[start:])
    pools = yaml.safe_load("\n".join(line.removeprefix("  # ") for line in block))
    objects = render({"pools": pools}, example="one-node", helm=helm)
    worker = pod_of(objects, "Deployment", "esm2-650m").container("worker")
    assert worker["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert find(objects, "Deployment", "esm2-650m")["spec"]["replicas"] == 28


@pytest.mark.parametrize("helm", HELMS)
def test_the_numbers_of_users_can_be_left_to_the_cluster(helm):
    """As OpenShift needs it, which gives each namespace its own."""
    numbers = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    redis = {"runAsUser": None, "runAsGroup": None}
    objects = render({"podSecurityContext": numbers, "redis": redis}, helm=helm)
    for pod in pods(objects):
        assert not numbers.keys() & pod.spec["securityContext"].keys(), pod.label
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
