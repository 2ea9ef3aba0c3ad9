"""The chart, rendered by real Helm, and the parts of what it renders.

``render({"keeper": {"replicas": 3}})`` gives the objects, ``refused({…})`` the message. The tools
are in ``.venv-tools/chart`` (``make chart`` gets them) or in the folder ``CHART_TOOLS``; a test
that needs one is skipped without it, and fails if ``CHART_REQUIRED`` is set, as in ``make chart``.
Without Helm ``tests/chart/conftest.py`` has most of them not even collected.
"""

import copy
import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "virnucpro-fleet"

#: The name that a release of this name gives to all objects.
RELEASE = "virnucpro-fleet"
NAMESPACE = "fleet"

KUBE_VERSION = "1.33.0"
KEDA = "keda.sh/v1alpha1"

#: Helm, the first one by default.
HELMS = ("helm4", "helm3")

#: Where each tool is in the folder of tools.
PLACES = {
    "helm4": "helm4/helm/helm",
    "helm3": "helm3/helm/helm",
    "kubectl": "helm4/kubectl/kubectl",
    "checkov": "checkov/bin/checkov",
}

Values = Mapping[str, Any]
Object = dict[str, Any]


def unavailable(what: str) -> NoReturn:
    """Skip the test, or fail it where all must run."""
    if os.environ.get("CHART_REQUIRED"):
        pytest.fail(what)
    pytest.skip(what)


def tools() -> Path:
    """Return the folder of the tools, which may not exist."""
    return Path(os.environ.get("CHART_TOOLS") or ROOT / ".venv-tools" / "chart")


def has(name: str) -> bool:
    """Return whether a tool is there."""
    return (tools() / PLACES[name]).is_file()


def tool(name: str) -> Path:
    """Return the path of a tool; skip the test without it."""
    path = tools() / PLACES[name]
    if not has(name):
        unavailable(f"needs {name} at {path}: make chart gets it")
    return path


def example_names() -> list[str]:
    """Return the names of the examples, values-NAME.yaml."""
    return sorted(path.stem.removeprefix("values-") for path in CHART.glob("values-*.yaml"))


def example(name: str) -> Path:
    return CHART / f"values-{name}.yaml"


def run_helm(helm: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (tool(helm), *words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def render(
    values: Values | None = None,
    *,
    example: str | None = None,
    helm: str = HELMS[0],
    kube_version: str = KUBE_VERSION,
    api_versions: Sequence[str] = (KEDA,),
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    upgrade: bool = False,
    chart: Path = CHART,
) -> list[Object]:
    """Return the objects, in the order in which they are rendered, hooks and tests too.

    Args:
        values: merged upon those of the chart and of the example.
        example: of ``example_names()``.
    """
    cluster = (kube_version, tuple(api_versions), release, namespace, upgrade)
    return copy.deepcopy(_rendered(chart, helm, json.dumps(values or {}), example, cluster))


@functools.cache
def _rendered(
    chart: Path, helm: str, values: str, example: str | None, cluster: tuple[Any, ...]
) -> list[Object]:
    done = _template(chart, helm, values, example, cluster)
    assert done.returncode == 0, done.stderr
    documents = yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)
    return [document for document in documents if document]


def refused(
    values: Values | None = None,
    *,
    example: str | None = None,
    helm: str = HELMS[0],
    kube_version: str = KUBE_VERSION,
    api_versions: Sequence[str] = (KEDA,),
    upgrade: bool = False,
    chart: Path = CHART,
) -> str:
    """Return the message with which Helm refuses values, which it must."""
    cluster = (kube_version, tuple(api_versions), RELEASE, NAMESPACE, upgrade)
    done = _template(chart, helm, json.dumps(values or {}), example, cluster)
    assert done.returncode != 0, f"accepted: {values}"
    return done.stderr


def _template(
    chart: Path, helm: str, values: str, name: str | None, cluster: tuple[Any, ...]
) -> subprocess.CompletedProcess[str]:
    kube_version, api_versions, release, namespace, upgrade = cluster
    words: list[object] = ["template", release, chart, "--namespace", namespace]
    words += ["--kube-version", kube_version]
    for version in api_versions:
        words += ["--api-versions", version]
    if upgrade:
        words.append("--is-upgrade")
    if name is not None:
        words += ["--values", example(name)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(values)
        file.flush()
        return run_helm(helm, *words, "--values", file.name)


def notes(values: Values | None = None, *, helm: str = HELMS[0]) -> str:
    """Return what NOTES.txt says, which ``helm template`` leaves out: as data of an object."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / CHART.name
        subprocess.run(["cp", "-r", CHART, chart], check=True)
        text = (chart / "templates" / "NOTES.txt").read_text()
        (chart / "templates" / "_notes.tpl").write_text(
            '{{ define "notes-of-test" }}' + text + "{{ end }}"
        )
        (chart / "templates" / "notes.yaml").write_text(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: notes-of-test}, "
            'data: {notes: {{ include "notes-of-test" . | toJson }}}}'
        )
        objects = render(values, helm=helm, chart=chart)
    return str(find(objects, "ConfigMap", "notes-of-test")["data"]["notes"])


def name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


def find_all(objects: Sequence[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def find(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """Return the only object of a kind, or the one with a name, or what follows the release in it:
    ``find(objects, "Deployment", "keeper")``.
    """
    found = find_all(objects, kind)
    names = [name_of(item) for item in found]
    if name:
        found = [item for item in found if name_of(item) in (name, f"{RELEASE}-{name}")]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found, of {names}"
    return found[0]


@dataclass(frozen=True)
class Pod:
    """A pod that an object makes."""

    owner: Object
    metadata: Object
    spec: Object

    @property
    def label(self) -> str:
        return f"{self.owner['kind']} {name_of(self.owner)}"

    @property
    def labels(self) -> Object:
        return dict(self.metadata.get("labels") or {})

    @property
    def component(self) -> str:
        return str(self.labels.get("app.kubernetes.io/component", ""))

    @property
    def long_running(self) -> bool:
        return self.owner["kind"] in ("Deployment", "StatefulSet", "DaemonSet")

    def containers(self) -> list[Object]:
        return list(self.spec["containers"])

    def all_containers(self) -> list[Object]:
        """Return the containers, and those that run before them."""
        return [*self.spec.get("initContainers", ()), *self.containers()]

    def container(self, name: str) -> Object:
        """Return a container of a name, which may be one that runs before the others."""
        names = {container["name"]: container for container in self.all_containers()}
        assert name in names, f"{self.label}: {name} is not in {list(names)}"
        return dict(names[name])


def pods(objects: Sequence[Object]) -> Iterator[Pod]:
    """Yield the pod of each object that makes one."""
    for item in objects:
        if item["kind"] == "Pod":
            yield Pod(item, item["metadata"], item["spec"])
            continue
        spec = item.get("spec") or {}
        if item["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        template = spec.get("template") if item["kind"] in WORKLOADS else None
        if template:
            yield Pod(item, template.get("metadata") or {}, template["spec"])


WORKLOADS = ("CronJob", "DaemonSet", "Deployment", "Job", "StatefulSet")


def pod_of(objects: Sequence[Object], kind: str, name: str = "") -> Pod:
    """Return the pod of the object that ``find`` finds."""
    return next(pods([find(objects, kind, name)]))


def env_of(container: Object) -> dict[str, Any]:
    """Return a container's variables: the value of each, or where it is from."""
    rows = container.get("env") or []
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)), f"{container['name']}: a variable is there twice: {names}"
    return {row["name"]: row["value"] if "value" in row else row["valueFrom"] for row in rows}


def references(value: str) -> list[str]:
    """Return the variables that a value takes in, ``$(NAME)``."""
    return re.findall(r"\$\((\w+)\)", value)
