"""Every object is valid: by Kubernetes' schemas of three versions, KEDA's, or Prometheus's tool."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.cases import CASES, EVERYTHING, Case
from tests.chart.validated import KINDS_OF_KUBERNETES, VALIDATED
from tests.support.chart import Object, find, find_all, render, unavailable
from tests.support.promtool import promtool
from tests.support.schemas import KUBERNETES, kubernetes_errors, scaled_object_errors


@pytest.fixture
def scaled_object() -> Object:
    return find(render(), "ScaledObject")


#: Claims of devices had another form before Kubernetes 1.31.
VERSIONS = [
    pytest.param(case, version, id=f"{case}-{version}")
    for case in CASES
    for version in KUBERNETES
    if case.name != "claims" or version != "1.29"
]


@pytest.mark.parametrize(("case", "version"), VERSIONS)
def test_kubernetes_accepts_every_object(case: Case, version: str):
    objects = case.render(kube_version=f"{version}.0")
    own = [item for item in objects if item["kind"] in KINDS_OF_KUBERNETES]
    assert len(own) > 15
    assert [error for item in own for error in kubernetes_errors(item, version)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicass"), 1),
        (("spec", "template", "spec", "containers", 0, "readynessProbe"), {}),
        (("spec", "replicas"), "many"),
    ],
)
def test_kubernetes_refuses_a_wrong_object(path, value):
    deployment = find(render(), "Deployment", "keeper")
    assert changed(deployment, path, value)
    assert kubernetes_errors(changed(deployment, path, value), KUBERNETES[-1])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_keda_accepts_every_scaled_object(case: Case):
    objects = find_all(case.render(), "ScaledObject")
    assert bool(objects) is case.by_keda
    assert [error for item in objects for error in scaled_object_errors(item)] == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("spec", "coolDownPeriod"), 300, "coolDownPeriod"),
        (("spec", "fallback", "behaviour"), "static", "behaviour"),
        (("spec", "fallback", "behavior"), "current", "current"),
        (("spec", "maxReplicaCount"), "4", "'4' is not of type"),
        (("spec", "triggers", 0, "type"), "metric-api", "there is no scaler"),
        (("spec", "triggers", 0, "metadata", "adress"), "x", "adress is unknown"),
        (("spec", "triggers", 0, "metadata", "targetValue"), 60, "targetValue is no text"),
        (("spec", "triggers", 0, "metadata"), {"url": "x"}, "valueLocation is missing"),
        (("spec", "triggers", 0, "metadata", "format"), "toml", "format must be one of"),
    ],
)
def test_keda_refuses_a_wrong_scaled_object(scaled_object, path, value, message):
    assert message in " ".join(scaled_object_errors(changed(scaled_object, path, value)))


def changed(item: Object, path: tuple[str | int, ...], value: Any) -> Object:
    """Return an object with another value at a path."""
    found = copy.deepcopy(item)
    at: Any = found
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return found


def test_promtool_accepts_the_rules(tmp_path: Path):
    if shutil.which("promtool") is None:
        unavailable("needs promtool: apt-get install prometheus")
    rules = find(render(EVERYTHING), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    promtool("check", "rules", tmp_path / "rules.yaml")


def test_it_is_said_of_every_kind_how_it_is_validated():
    rendered = {item["kind"] for case in CASES for item in case.render()}
    assert rendered == set(VALIDATED)
