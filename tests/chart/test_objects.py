"""Objects fit together: labels, selectors, ports, and the names by which one refers to another."""

from typing import Any

import pytest
import yaml

from tests.chart.cases import CASES, EVERYTHING, Case
from tests.support.chart import Object, Pod, example, find, find_all, name_of, pods, render
from tests.support.chart_references import claims_of, keys_of, references_of

LABELS = {
    "app.kubernetes.io/name": "virnucpro-fleet",
    "app.kubernetes.io/instance": "virnucpro-fleet",
    "app.kubernetes.io/part-of": "virnucpro-fleet",
    "app.kubernetes.io/managed-by": "Helm",
}

#: There in every namespace.
ALWAYS = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def texts(value: Any) -> set[str]:
    """Return all texts in values."""
    if isinstance(value, dict):
        return set().union(*map(texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(texts, value))
    return {str(value)}


def values_of(case: Case) -> set[str]:
    given = texts(dict(case.values))
    return given | (
        texts(yaml.safe_load(example(case.example).read_text())) if case.example else set()
    )


def matches(selector: Object, labels: Object) -> bool:
    assert set(selector) <= {"matchLabels"}, selector
    return selector["matchLabels"].items() <= labels.items()


def selected(objects: list[Object], selector: Object) -> list[Pod]:
    return [pod for pod in pods(objects) if matches(selector, pod.labels)]


def test_every_object_has_the_labels(case: Case):
    for item in case.render():
        labels = item["metadata"].get("labels", {})
        if labels.get("of"):
            continue  # the user's own object
        expected = LABELS | case.values.get("commonLabels", {})
        assert expected.items() <= labels.items(), (item["kind"], name_of(item))
        assert labels["helm.sh/chart"].startswith("virnucpro-fleet-")
        assert labels["app.kubernetes.io/version"]


def test_workloads_and_budgets_select_their_own_pods_and_no_others(case: Case):
    objects = case.render()
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        for item in find_all(objects, kind):
            found = selected(objects, item["spec"]["selector"])
            assert [pod.owner for pod in found] == [item], name_of(item)
    for budget in find_all(objects, "PodDisruptionBudget"):
        found = selected(objects, budget["spec"]["selector"])
        assert [name_of(pod.owner) for pod in found] == [name_of(budget)]


def test_services_lead_to_a_named_port_of_a_pod(case: Case):
    objects = case.render()
    services = find_all(objects, "Service")
    assert services
    for service in services:
        found = selected(objects, {"matchLabels": service["spec"]["selector"]})
        assert len(found) == 1, name_of(service)
        names = {port["name"] for item in found[0].containers() for port in item["ports"]}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in names, name_of(service)


def test_probes_and_monitors_name_a_port_of_the_container(case: Case):
    objects = case.render()
    for pod in pods(objects):
        for container in pod.all_containers():
            names = {port["name"] for port in container.get("ports", ())}
            for moment in ("livenessProbe", "readinessProbe", "startupProbe"):
                asked = container.get(moment, {}).get("httpGet", {"port": None})["port"]
                assert asked is None or asked in names, (pod.label, moment)
    for monitor in find_all(objects, "PodMonitor"):
        found = selected(objects, monitor["spec"]["selector"])
        assert found
        for pod in found:
            names = {port["name"] for item in pod.containers() for port in item["ports"]}
            assert {at["port"] for at in monitor["spec"]["podMetricsEndpoints"]} <= names, pod.label


def test_what_is_referred_to_is_there_or_is_a_value(case: Case):
    objects = case.render()
    there = {(item["kind"], name_of(item)): item for item in objects}
    given = values_of(case)
    found = 0
    for item in objects:
        for reference in references_of(item):
            found += 1
            target = there.get((reference.kind, reference.name))
            if target is None:
                known = reference[:2] in ALWAYS or reference.name in given
                assert known, (item["kind"], name_of(item), reference)
            elif reference.kind in ("Secret", "ConfigMap"):
                assert set(reference.keys) <= keys_of(target), (name_of(item), reference)
    assert found > 15


def test_mounts_and_volumes_belong_together(case: Case):
    for pod in pods(case.render()):
        volumes = [volume["name"] for volume in pod.spec.get("volumes", ())]
        if pod.owner["kind"] == "StatefulSet":
            volumes += claims_of(pod.owner)
        mounts = [item.get("volumeMounts") or [] for item in pod.all_containers()]
        assert len(volumes) == len(set(volumes)), pod.label
        assert {mount["name"] for row in mounts for mount in row} == set(volumes), pod.label
        for row in mounts:
            paths = [mount["mountPath"] for mount in row]
            assert len(paths) == len(set(paths)), (pod.label, paths)


def test_a_hook_before_the_installation_needs_nothing_that_is_installed_after_it(case: Case):
    objects = case.render()
    there = {(item["kind"], name_of(item)): item for item in objects}
    for item in objects:
        if "pre-install" not in hooks_of(item):
            continue
        for reference in references_of(item):
            target = there.get((reference.kind, reference.name))
            if target is not None:
                assert "pre-install" in hooks_of(target), (name_of(item), reference)
                assert weight_of(target) < weight_of(item), (name_of(item), reference)


def hooks_of(item: Object) -> list[str]:
    annotations = item["metadata"].get("annotations") or {}
    return str(annotations.get("helm.sh/hook", "")).split(",")


def weight_of(item: Object) -> int:
    return int(item["metadata"]["annotations"].get("helm.sh/hook-weight", 0))


def test_there_is_a_hook_before_the_installation():
    """That the test above looks at one."""
    job = find(render(EVERYTHING), "Job", "weights")
    assert "pre-install" in hooks_of(job)
    assert list(references_of(job))


def test_what_scales_has_no_number_of_pods_of_its_own(case: Case):
    objects = case.render()
    targets = [
        item["spec"]["scaleTargetRef"]["name"]
        for item in objects
        if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    ]
    assert len(targets) == len(set(targets))
    for deployment in find_all(objects, "Deployment"):
        scales = name_of(deployment) in targets
        assert ("replicas" in deployment["spec"]) is not scales, name_of(deployment)
