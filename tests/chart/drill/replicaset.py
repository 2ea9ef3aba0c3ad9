"""Which pods a ReplicaSet ends first, and their number.

The ranking is Kubernetes's, ``ActivePodsWithRanks`` in ``pkg/controller/controller_utils.go``, for
pods of one node: not ready before ready, a lower deletion cost before a higher one, shorter
ready before longer, more restarts before fewer, newer before older. Of times, only the logarithm
counts (the feature ``LogarithmicScaleDown``).
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any

from tests.chart.drill.kubelet import Pod
from tests.support.kubernetes_api import COST


def ranked(pods: Sequence[Pod], now: float) -> list[Pod]:
    """Return pods in the order in which they would be ended."""

    def compare(one: Pod, other: Pod) -> int:
        return order(one, other, now)

    return sorted(pods, key=cmp_to_key(compare))


def order(one: Pod, other: Pod, now: float) -> int:
    """Return a negative number if the first pod is to be ended first."""
    for rank in (lambda pod: pod.ready, cost):
        if rank(one) != rank(other):
            return int(rank(one)) - int(rank(other))
    if one.ready and other.ready and one.ready_at != other.ready_at:
        return by_age(one, other, now - one.ready_at, now - other.ready_at)
    if one.restarts != other.restarts:
        return other.restarts - one.restarts
    return by_age(one, other, now - one.created, now - other.created)


def by_age(one: Pod, other: Pod, first: float, second: float) -> int:
    """Compare logarithms of ages, and where they are the same, what is random in a cluster."""
    difference = magnitude(first) - magnitude(second)
    return difference or (-1 if one.name < other.name else 1)


def magnitude(seconds: float) -> int:
    """Return the logarithm of an age in nanoseconds."""
    return int(math.log2(seconds * 1e9)) if seconds > 0 else -1


def cost(pod: Pod) -> int:
    return int(pod.annotations.get(COST, "0"))


class ReplicaSet:
    """The pods of a Deployment."""

    def __init__(
        self, make: Callable[[str], Pod], name: str, on_end: Callable[[list[Pod], list[Pod]], None]
    ) -> None:
        """Create a ReplicaSet without pods.

        Args:
            on_end: is told of all pods and of those that will be ended, before they are.
        """
        self.make = make
        self.on_end = on_end
        self.pods: list[Pod] = []
        self._names = (f"{name}-{number}" for number in itertools.count())

    @property
    def active(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.is_active]

    def scale(self, replicas: int) -> None:
        """Start or end pods so that there are so many."""
        active = self.active
        for _ in range(replicas - len(active)):
            pod = self.make(next(self._names))
            self.pods.append(pod)
            pod.run()
        if len(active) > replicas:
            chosen = ranked(active, time.monotonic())[: len(active) - replicas]
            self.on_end(active, chosen)
            for pod in chosen:
                pod.delete()

    def close(self) -> None:
        for pod in self.active:
            pod.delete()
        for pod in self.pods:
            pod.join(pod.template.grace + 10)

    def facts(self) -> list[dict[str, Any]]:
        """Return what became of each pod that ended."""
        return [
            {"pod": pod.name, "codes": pod.codes, "seconds": round(pod.ended - pod.deleted, 1)}
            for pod in self.pods
            if pod.ended
        ]
