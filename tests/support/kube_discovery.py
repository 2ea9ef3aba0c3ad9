"""What an API server of Kubernetes says of itself: the kinds that it has, and their paths."""

from typing import Any

Object = dict[str, Any]

#: Kinds that the chart has, by the path of their group and version; and those that Helm keeps.
KINDS = {
    "api/v1": ["ConfigMap", "PersistentVolumeClaim", "Secret", "Service", "ServiceAccount"],
    "apis/apps/v1": ["DaemonSet", "Deployment", "StatefulSet"],
    "apis/autoscaling/v2": ["HorizontalPodAutoscaler"],
    "apis/batch/v1": ["CronJob", "Job"],
    "apis/keda.sh/v1alpha1": ["ScaledObject"],
    "apis/networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "apis/policy/v1": ["PodDisruptionBudget"],
    "apis/rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
}


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}{'es' * name.endswith('ss') or 's'}"


def kind_at(path: str) -> tuple[str, str | None]:
    """Return the group and the kind of a path of all objects of a kind in a namespace."""
    group, _, rest = path.partition("/namespaces/")
    name = rest.partition("/")[2]
    return group, next((kind for kind in KINDS.get(group, ()) if plural(kind) == name), None)


def discovery(path: str) -> Object | None:
    """Return what the server says of itself."""
    if path == "version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        names = [group.split("/")[1:] for group in KINDS if group.startswith("apis/")]
        versions = [{"groupVersion": f"{name}/{v}", "version": v} for name, v in names]
        groups = [
            {"name": name, "versions": [version], "preferredVersion": version}
            for (name, _), version in zip(names, versions, strict=True)
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "openapi/v3":
        return {"paths": {group: {"serverRelativeURL": f"/openapi/v3/{group}"} for group in KINDS}}
    if path.startswith("openapi/v3/"):
        return validation(path.removeprefix("openapi/v3/"))
    if path not in KINDS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {
            "name": plural(k),
            "singularName": k.lower(),
            "namespaced": True,
            "kind": k,
            "verbs": verbs,
        }
        for k in KINDS[path]
    ]
    version = path.partition("/")[2]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def validation(path: str) -> Object:
    """Return the description that says to Helm: this server validates objects, you need not."""
    _, *group, version = path.split("/")
    parameters = [{"name": "fieldValidation", "in": "query"}]
    paths = {
        f"/{path}/namespaces/{{namespace}}/{plural(kind)}/{{name}}": {
            "patch": {
                "parameters": parameters,
                "x-kubernetes-group-version-kind": {
                    "group": "".join(group),
                    "version": version,
                    "kind": kind,
                },
            }
        }
        for kind in KINDS[path]
    }
    return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}
