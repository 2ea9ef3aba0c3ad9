"""Values that the chart is rendered with: every example, each way of scaling, either Redis."""

from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.chart import (
    HELMS,
    KEDA,
    Object,
    Values,
    example,
    example_names,
    find_all,
    render,
)

#: What each example is rendered with in addition.
SCALING: dict[str, Values] = {
    "keda": {"autoscaling": {"mode": "keda"}},
    "hpa": {"autoscaling": {"mode": "hpa"}, "poolDefaults": {"replicas": {"min": 1}}},
    "fixed": {"autoscaling": {"mode": "none"}},
}

REDIS: dict[str, Values] = {
    "own-redis": {
        "redis": {"enabled": True},
        "externalRedis": {"host": "", "tls": {"enabled": False}},
    },
    "external-redis": {
        "redis": {"enabled": False},
        "externalRedis": {"host": "redis.example"},
        "secrets": {"existingSecret": "fleet-secrets"},
    },
}

#: All that is off by default, and pools of many kinds.
EVERYTHING: Values = {
    "commonLabels": {"team": "virus"},
    "podAnnotations": {"example.com/note": "all pods"},
    "images": {"registry": "registry.example/team", "pullSecrets": ["registry-login"]},
    "redis": {"tls": {"enabled": True, "existingSecret": "redis-tls"}},
    "store": {
        "url": "s3://bucket/fleet",
        "s3": {
            "endpoint": "https://s3.example:9000",
            "caSecret": "store-ca",
            "webIdentity": {"roleArn": "arn:aws:iam::111122223333:role/fleet"},
        },
    },
    "weights": {
        "source": "volume",
        "hub": {"endpoint": "https://hub.example", "tokenSecret": "hub-token"},
    },
    "pools": [
        {"name": "esm2-650m", "model": "esm2_t33_650M_UR50D", "spot": True},
        {"name": "esm2-3b", "model": "esm2_t36_3B_UR50D", "gpu": {"count": 2}, "paused": True},
        {
            "name": "slices",
            "model": "dnabert_s",
            "revision": "main",
            "gpu": {"resource": "nvidia.com/mig-1g.10gb"},
        },
        {"name": "cpu", "model": "esm2_t6_8M_UR50D", "gpu": {"count": 0}, "tolerations": []},
        {"name": "fixed", "model": "esm2_t6_8M_UR50D", "replicas": {"min": 2, "max": 2}},
        {"name": "alone", "model": "esm2_t6_8M_UR50D", "weightsSource": "download"},
        {"name": "built-in", "model": "/models/own", "weightsSource": "image"},
    ],
    "poolDefaults": {"nodeSelector": {"kubernetes.io/os": "linux"}},
    "prePull": {"enabled": True},
    "flower": {
        "urlPrefix": "/flower",
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "fleet.example",
            "tlsSecret": "flower-tls",
        },
    },
    "submissions": [
        {"name": "once", "input": "s3://bucket/proteins.fasta", "model": "dnabert_s"},
        {"name": "nightly", "input": "s3://bucket/new.fasta", "schedule": "0 3 * * *"},
    ],
    "monitoring": {"podMonitor": True, "rules": True, "dashboard": True},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": '{{ include "fleet.fullname" . }}-notes',
                "labels": {"of": "{{ .Release.Name }}"},
            },
        }
    ],
}

#: What Flower has in place of an ingress.
ROUTE: Values = {
    "urlPrefix": "/flower",
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "gateway"}],
        "hostnames": ["fleet.example"],
    },
}


def scaled(scaling: str, name: str | None) -> Values:
    """Return the values of a way of scaling, with which an example's pools agree."""
    values = SCALING[scaling]
    pools = yaml.safe_load(example(name).read_text()).get("pools", []) if name else []
    if scaling != "hpa" or not any("min" in pool.get("replicas", {}) for pool in pools):
        return values
    # A HorizontalPodAutoscaler never goes to 0.
    for pool in pools:
        replicas = pool.setdefault("replicas", {})
        replicas["min"] = max(1, replicas.get("min", 0))
    return {**values, "pools": pools}


@dataclass(frozen=True)
class Case:
    """Values, with a name for tests."""

    name: str
    values: Values
    example: str | None = None

    @property
    def by_keda(self) -> bool:
        return self.values.get("autoscaling", SCALING["keda"]["autoscaling"])["mode"] == "keda"

    def render(self, helm: str = HELMS[0], **cluster: Any) -> list[Object]:
        how = {"api_versions": (KEDA,) if self.by_keda else (), **cluster}
        return render(self.values, example=self.example, helm=helm, **how)

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("everything", EVERYTHING),
    Case("claims", {"poolDefaults": {"gpu": {"claimTemplate": "gpus"}}}),
    Case("everything-by-a-route", {**EVERYTHING, "flower": ROUTE}),
    *(
        Case(
            f"{name or 'defaults'}-{scaling}-{redis}",
            {**scaled(scaling, name), **REDIS[redis]},
            name,
        )
        for name in (None, *example_names())
        for scaling in SCALING
        for redis in REDIS
    ),
]


def without_random(objects: list[Object]) -> list[Object]:
    """Replace the passwords that each rendering makes anew."""
    for secret in find_all(objects, "Secret"):
        for values in (secret.get("data") or {}, secret.get("stringData") or {}):
            values.update(dict.fromkeys(values, "random"))
    return objects
