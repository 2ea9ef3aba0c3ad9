"""What the chart says of its pods, as a kubelet reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.chart import NAMESPACE, Object, pod_of
from tests.support.containers import variables


@dataclass(frozen=True)
class Probe:
    """How a kubelet looks at a container; the defaults are Kubernetes's."""

    command: tuple[str, ...] = ()  # that is run in the container
    path: str = ""  # or is asked for over HTTP
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    failures: int = 3
    successes: int = 1


@dataclass(frozen=True)
class Template:
    """Pods of one container each."""

    program: str  # of the image: worker or producer
    container: Object
    objects: Sequence[Object]  # all that are rendered
    mounts: Mapping[str, Mapping[str, Any]]  # volumes by their places
    grace: float
    startup: Probe | None
    liveness: Probe | None
    readiness: Probe | None

    def environment(self, pod: str) -> dict[str, str]:
        """Return a pod's variables, with those of Secrets."""
        fields = {"metadata.name": pod, "metadata.namespace": NAMESPACE}
        return variables(self.container, self.objects, fields)


def template_of(objects: Sequence[Object], kind: str, name: str, program: str) -> Template:
    """Return what a rendered object says of its pods."""
    pod = pod_of(objects, kind, name)
    assert not pod.spec.get("initContainers"), f"{name}: pods with init containers are not run"
    [container] = pod.containers()
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    return Template(
        program=program,
        container=container,
        objects=objects,
        mounts={
            mount["mountPath"]: {**volumes[mount["name"]], "readOnly": mount.get("readOnly", False)}
            for mount in container["volumeMounts"]
        },
        grace=float(pod.spec.get("terminationGracePeriodSeconds", 30)),
        startup=read_probe(container.get("startupProbe")),
        liveness=read_probe(container.get("livenessProbe")),
        readiness=read_probe(container.get("readinessProbe")),
    )


def read_probe(given: Mapping[str, Any] | None) -> Probe | None:
    if given is None:
        return None
    defaults = Probe()
    return Probe(
        command=tuple(given.get("exec", {}).get("command", ())),
        path=given.get("httpGet", {}).get("path", ""),
        delay=given.get("initialDelaySeconds", defaults.delay),
        period=given.get("periodSeconds", defaults.period),
        timeout=given.get("timeoutSeconds", defaults.timeout),
        failures=given.get("failureThreshold", defaults.failures),
        successes=given.get("successThreshold", defaults.successes),
    )
