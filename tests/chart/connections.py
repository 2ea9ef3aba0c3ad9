"""Sets of values, with the connections that the chart's NetworkPolicies leave open in each."""

from typing import Any

from tests.support.chart import Values

#: Prometheus may scrape whatever the values are.
MONITORING = ["prometheus > keeper 9808", "prometheus > worker 9809"]

USERS_OF_STORE = ("keeper", "worker", "submission", "hook")
S3: dict[str, Any] = {"url": "s3://bucket/fleet", "s3": {"existingSecret": "store"}}


def to_redis(*, server: str = "redis", flower: bool = True) -> list[str]:
    users = ["hook", "keeper", "submission", "worker", *(["flower"] if flower else [])]
    return [f"{user} > {server} 6379" for user in users]


def to(server: str, port: int, *sources: str) -> list[str]:
    return [f"{source} > {server} {port}" for source in sources]


CASES: dict[str, tuple[Values, list[str]]] = {
    "a folder as store, weights downloaded, scaled by KEDA": (
        {},
        [
            *to_redis(),
            *MONITORING,
            "keda > keeper 9808",
            "ingress > flower 5555",
            "worker > hub 443",
            *to("api", 443, "keeper"),
            *to("api", 6443, "keeper"),
        ],
    ),
    "a bucket, whose keys a Secret has": (
        {"store": S3, "autoscaling": {"mode": "none"}, "weights": {"source": "image"}},
        [
            *to_redis(),
            *MONITORING,
            "ingress > flower 5555",
            *to("bucket", 443, *USERS_OF_STORE),
        ],
    ),
    "a bucket on another port, by a role of the pod's token": (
        {
            "store": {
                "url": "s3://bucket/fleet",
                "s3": {
                    "endpoint": "http://s3.example:9000",
                    "webIdentity": {"roleArn": "r", "stsEndpoint": "https://sts.example:8443/x"},
                },
            },
            "autoscaling": {"mode": "none"},
            "weights": {"source": "image"},
            "flower": {"enabled": False},
        },
        [
            *to_redis(flower=False),
            *MONITORING,
            *to("bucket", 9000, *USERS_OF_STORE),
            *to("sts", 8443, *USERS_OF_STORE),
        ],
    ),
    "a bucket, by a role of the account": (
        {
            "store": {"url": "s3://bucket/fleet"},
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "r"}},
            "autoscaling": {"mode": "none"},
            "weights": {"source": "image"},
            "flower": {"enabled": False},
        },
        [
            *to_redis(flower=False),
            *MONITORING,
            *to("bucket", 443, *USERS_OF_STORE),
            *to("sts", 443, *USERS_OF_STORE),
        ],
    ),
    "a bucket, by a role that EKS Pod Identity gives to an account with annotations": (
        {
            "store": {"url": "s3://bucket/fleet"},
            "serviceAccount": {"annotations": {"example.com/owner": "team"}},
            "autoscaling": {"mode": "none"},
            "weights": {"source": "image"},
            "flower": {"enabled": False},
        },
        [
            *to_redis(flower=False),
            *MONITORING,
            *to("bucket", 443, *USERS_OF_STORE),
            *to("sts", 443, *USERS_OF_STORE),
            *to("node", 80, *USERS_OF_STORE),
            *to("pod-identity", 80, *USERS_OF_STORE),
        ],
    ),
    "a bucket, by the node's role": (
        {
            "store": {"url": "s3://bucket/fleet"},
            "autoscaling": {"mode": "none"},
            "weights": {"source": "image"},
            "flower": {"enabled": False},
        },
        [
            *to_redis(flower=False),
            *MONITORING,
            *to("bucket", 443, *USERS_OF_STORE),
            *to("sts", 443, *USERS_OF_STORE),
            *to("node", 80, *USERS_OF_STORE),
            *to("pod-identity", 80, *USERS_OF_STORE),
        ],
    ),
    "an external Redis on another port": (
        {
            "redis": {"enabled": False},
            "externalRedis": {"host": "redis.example", "port": 8443},
            "secrets": {"existingSecret": "passwords"},
            "autoscaling": {"mode": "none"},
            "weights": {"source": "image"},
            "flower": {"enabled": False},
        },
        [*MONITORING, *to("external-redis", 8443, "hook", "keeper", "submission", "worker")],
    ),
    "weights on a volume that a hook fills": (
        {"weights": {"source": "volume"}, "autoscaling": {"mode": "none"}},
        [*to_redis(), *MONITORING, "ingress > flower 5555", "hook > hub 443"],
    ),
    "a volume that has the weights": (
        {
            "weights": {"source": "volume", "volume": {"fill": False, "existingClaim": "weights"}},
            "autoscaling": {"mode": "none"},
        },
        [*to_redis(), *MONITORING, "ingress > flower 5555"],
    ),
    "weights in a bucket, beside a folder as store": (
        {
            "pools": [{"name": "mine", "model": "s3://weights/mine"}],
            "store": {"s3": {"existingSecret": "store"}},
            "autoscaling": {"mode": "none"},
        },
        [*to_redis(), *MONITORING, "ingress > flower 5555", "worker > bucket 443"],
    ),
    "one pool that is scaled, without marks on busy pods": (
        {
            "pools": [
                {"name": "fixed", "model": "esm2_t6_8M_UR50D", "replicas": {"min": 2, "max": 2}},
                {"name": "scaled", "model": "esm2_t33_650M_UR50D", "weightsSource": "image"},
            ],
            "weights": {"source": "image"},
            "autoscaling": {"deletionCost": False},
        },
        [*to_redis(), *MONITORING, "ingress > flower 5555", "keda > keeper 9808"],
    ),
    "scaled by a HorizontalPodAutoscaler": (
        {
            "poolDefaults": {"replicas": {"min": 1}},
            "weights": {"source": "image"},
            "autoscaling": {"mode": "hpa", "deletionCost": False},
        },
        [*to_redis(), *MONITORING, "ingress > flower 5555"],
    ),
    "a store that somebody has made": (
        {
            "store": {"init": False},
            "weights": {"source": "volume"},
            "autoscaling": {"mode": "none"},
            "flower": {"enabled": False},
        },
        [*to("redis", 6379, "keeper", "submission", "worker"), *MONITORING, "hook > hub 443"],
    ),
    "producers elsewhere": (
        {
            "weights": {"source": "image"},
            "autoscaling": {"mode": "none"},
            "networkPolicy": {
                "redisClients": [
                    {
                        "namespaceSelector": {
                            "matchLabels": {"kubernetes.io/metadata.name": "other"}
                        },
                        "podSelector": {"matchLabels": {"app": "notebook"}},
                    }
                ]
            },
        },
        [*to_redis(), *MONITORING, "ingress > flower 5555", "pod-elsewhere > redis 6379"],
    ),
    "nobody named for what may do without": (
        {
            "store": S3,
            "autoscaling": {"mode": "none"},
            "weights": {"source": "image"},
            "networkPolicy": {
                "credentials": {"peers": []},
                "node": {"peers": []},
                "hub": {"peers": []},
                "redis": {"peers": []},
                "apiServer": {"peers": []},
                "keda": [],
                "prometheus": [],
                "flower": [],
            },
        },
        [*to_redis(), *to("bucket", 443, *USERS_OF_STORE)],
    ),
}
