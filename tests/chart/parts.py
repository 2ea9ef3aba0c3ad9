"""Parts of values that tests of the chart put together."""

from typing import Any

from tests.support.chart import Values

S3: Values = {"url": "s3://bucket/fleet"}
EXTERNAL: Values = {
    "redis": {"enabled": False},
    "externalRedis": {"host": "redis.example"},
    "secrets": {"existingSecret": "passwords"},
}
GPU = "nvidia.com/gpu"
ONE_NODE: Values = {"volume": {"accessModes": ["ReadWriteOnce"]}}
ONE_NODE_WEIGHTS: Values = {"source": "volume", **ONE_NODE}
NODE: Values = {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}


def pool(**values: Any) -> Values:
    """Return values with one pool."""
    return {"pools": [{"name": "p", "model": "esm2_t6_8M_UR50D", **values}]}


def two_pools(first: Values, second: Values) -> Values:
    """Return values with two pools of one model."""
    both = {"model": "esm2_t6_8M_UR50D"}
    return {"pools": [{"name": "a", **both, **first}, {"name": "b", **both, **second}]}


def submission(**values: Any) -> Values:
    """Return values with one submission."""
    return {"submissions": [{"name": "s", "input": "s3://bucket/in.fasta", **values}]}


def variable(name: str) -> list[dict[str, str]]:
    return [{"name": name, "value": "x"}]
