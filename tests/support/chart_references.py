"""What an object of the chart refers to by name."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support.chart import Object, Pod, name_of, pods


class Reference(NamedTuple):
    kind: str
    name: str
    keys: tuple[str, ...] = ()  # of a Secret or ConfigMap, those that must be there


def references_of(item: Object) -> Iterator[Reference]:
    """Yield what an object needs to be there."""
    spec = item.get("spec") or {}
    for pod in pods([item]):
        yield from _of_pod(pod)
    match item["kind"]:
        case "HorizontalPodAutoscaler":
            yield Reference(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        case "ScaledObject":
            target = spec["scaleTargetRef"]
            yield Reference(target.get("kind", "Deployment"), target["name"])
        case "StatefulSet":
            yield Reference("Service", spec["serviceName"])
        case "RoleBinding":
            yield Reference(item["roleRef"]["kind"], item["roleRef"]["name"])
            for subject in item["subjects"]:
                yield Reference(subject["kind"], subject["name"])
        case "Ingress":
            for tls in spec.get("tls") or ():
                yield Reference("Secret", tls["secretName"], ("tls.crt", "tls.key"))
            for rule in spec["rules"]:
                for path in rule["http"]["paths"]:
                    yield Reference("Service", path["backend"]["service"]["name"])
        case "HTTPRoute":
            for rule in spec["rules"]:
                for backend in rule["backendRefs"]:
                    yield Reference(backend.get("kind", "Service"), backend["name"])


def _of_pod(pod: Pod) -> Iterator[Reference]:
    spec = pod.spec
    if account := spec.get("serviceAccountName"):
        yield Reference("ServiceAccount", account)
    for secret in spec.get("imagePullSecrets") or ():
        yield Reference("Secret", secret["name"])
    if priority := spec.get("priorityClassName"):
        yield Reference("PriorityClass", priority)
    if runtime := spec.get("runtimeClassName"):
        yield Reference("RuntimeClass", runtime)
    for claim in spec.get("resourceClaims") or ():
        yield Reference("ResourceClaimTemplate", claim["resourceClaimTemplateName"])
    for volume in spec.get("volumes") or ():
        yield from _of_volume(volume)
    for container in pod.all_containers():
        for variable in container.get("env") or ():
            yield from _of_source(variable.get("valueFrom") or {})


def _of_volume(volume: Object) -> Iterator[Reference]:
    if claim := volume.get("persistentVolumeClaim"):
        yield Reference("PersistentVolumeClaim", claim["claimName"])
    for source in (volume.get("projected") or {}).get("sources", [volume]):
        if secret := source.get("secret"):
            name = secret.get("secretName") or secret["name"]
            yield Reference("Secret", name, _items(secret))
        if config := source.get("configMap"):
            yield Reference("ConfigMap", config["name"], _items(config))


def _items(source: Object) -> tuple[str, ...]:
    return tuple(item["key"] for item in source.get("items") or ())


def _of_source(source: dict[str, Any]) -> Iterator[Reference]:
    for kind, at in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        if chosen := source.get(at):
            keys = () if chosen.get("optional") else (chosen["key"],)
            yield Reference(kind, chosen["name"], keys)


def keys_of(item: Object) -> set[str]:
    """Return the keys of a Secret or ConfigMap."""
    return {key for at in ("data", "stringData", "binaryData") for key in item.get(at) or ()}


def claims_of(item: Object) -> list[str]:
    """Return the names of the volumes that a StatefulSet makes claims for."""
    templates = item["spec"].get("volumeClaimTemplates") or ()
    return [name_of(template) for template in templates]
