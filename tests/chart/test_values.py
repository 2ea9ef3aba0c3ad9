"""Every value is described, has a type, is used, and no other value is accepted."""

import itertools
import re
from typing import Any

import pytest
import yaml

from tests.chart.describe import README, SCHEMA, VALUES, as_text, readme, resolved, schema, values
from tests.support.chart import (
    CHART,
    HELMS,
    example,
    example_names,
    find,
    pod_of,
    pods,
    refused,
    render,
)

#: What a pool has and `poolDefaults` has not.
OF_POOLS = {"name"}


def names_in(node: dict[str, Any], above: tuple[str, ...] = ()) -> set[str]:
    """Return the names of all values that a schema knows, without those of maps of any form."""
    node = resolved(SCHEMA_NOW, node)
    if node.get("additionalProperties") is not False or "properties" not in node:
        return {".".join(above)}
    return set().union(
        *(names_in(below, (*above, key)) for key, below in node["properties"].items())
    )


SCHEMA_NOW = schema()


def test_the_readme_and_the_schema_say_what_values_yaml_says():
    """If not: python -m tests.chart.describe."""
    assert README.read_text() == readme()
    assert SCHEMA.read_text() == as_text(schema()) + "\n"


def test_every_value_is_in_the_schema_and_no_other():
    named = {value.name for value in values()}
    known = names_in(SCHEMA_NOW)
    whole = {name for name in named if any(other.startswith(f"{name}.") for other in known)}
    known = {name for name in known if not any(name.startswith(f"{above}.") for above in whole)}
    own = {f"poolDefaults.{name}" for name in OF_POOLS} | {"global"}
    assert known - own == named - whole


def test_every_value_is_in_the_table_of_the_readme():
    rows = re.findall(r"^\| `([\w.]+)` \|", README.read_text(), re.MULTILINE)
    assert rows == [value.name for value in values()]
    assert len(rows) == len(set(rows)) > 150


def test_every_comment_about_a_value_is_in_the_table():
    """None is above a line that has no value, or lost in one above."""
    comments = len(re.findall(r"^ *# -- ", VALUES.read_text(), re.MULTILINE))
    distinct = {value.comment for value in values() if value.comment}
    assert comments >= len(distinct) > 100
    for comment in re.findall(r"^ *# -- (.{1,40})", VALUES.read_text(), re.MULTILINE):
        assert any(text.startswith(comment) for text in distinct), comment


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


@pytest.mark.parametrize("name", example_names())
def test_an_example_says_something_other_than_the_defaults(name):
    """But for its pools, which may be the default's, written out."""
    given = yaml.safe_load(example(name).read_text())
    defaults = yaml.safe_load(VALUES.read_text())
    assert same(given, defaults) - {"pools"} == set()
    assert f"values-{name}.yaml" in README.read_text()


def same(given: dict[str, Any], defaults: dict[str, Any], above: str = "") -> set[str]:
    """Return the names of values that are those of the defaults."""
    found: set[str] = set()
    for key, value in given.items():
        if value == defaults.get(key):
            found.add(above + key)
        elif isinstance(value, dict):
            found |= same(value, defaults.get(key) or {}, f"{above}{key}.")
    return found


def test_the_chart_has_no_examples_that_the_readme_does_not_name():
    named = set(re.findall(r"values-[\w-]+\.yaml", README.read_text()))
    assert named == {path.name for path in CHART.glob("values-*.yaml")}


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
