"""What a HorizontalPodAutoscaler does with one external metric, in functions that change nothing.

Each rule is Kubernetes's, from ``pkg/controller/podautoscaler`` unless another file is named:

==============  =============================================================================
``wanted``      ``replica_calculator.go``, ``GetExternalPerPodMetricReplicas``: the value divided
                by the target and rounded up; within the tolerance, what there is
``synced``      ``horizontal.go``, ``reconcileAutoscaler``: nothing is done at 0 replicas, or if
                the metric cannot be had; limits come first
``stabilized``  ``stabilizeRecommendationWithBehaviors``: the highest recommendation of the window
                for scaling down counts, and the lowest of the one for scaling up
``limited``     ``convertDesiredReplicasWithBehaviorRate``, with the changes of a period
defaults        ``pkg/apis/autoscaling/v2/defaults.go``; of the period, the tolerance and the
                window for scaling down: ``config/v1alpha1/defaults.go``
==============  =============================================================================
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

#: Seconds between two looks at a metric; seconds of the window for scaling down, by default.
SYNC_SECONDS, DOWN_WINDOW_SECONDS = 15.0, 300.0

#: Share of the target by which a value may differ without a change of replicas.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Policy:
    """The largest change in a period."""

    kind: str  # Pods or Percent
    value: int
    seconds: float


@dataclass(frozen=True)
class Rules:
    """How replicas change in one direction."""

    window: float
    policies: tuple[Policy, ...]
    select: str = "Max"  # of the policies; Min, or Disabled


#: What the API server fills in where a HorizontalPodAutoscaler does not say it.
UP = Rules(0.0, (Policy("Pods", 4, 15.0), Policy("Percent", 100, 15.0)))
DOWN = Rules(DOWN_WINDOW_SECONDS, (Policy("Percent", 100, 15.0),))


@dataclass(frozen=True)
class Hpa:
    """A HorizontalPodAutoscaler: its limits, its target for each pod, and its behaviour."""

    fewest: int
    most: int
    target: float
    up: Rules = UP
    down: Rules = DOWN


@dataclass(frozen=True)
class History:
    """What the controller remembers: (time, replicas), and (time, change) for both directions."""

    recommended: tuple[tuple[float, int], ...] = ()
    added: tuple[tuple[float, int], ...] = ()
    removed: tuple[tuple[float, int], ...] = ()


def read_hpa(manifest: Mapping[str, Any]) -> Hpa:
    """Return what a rendered HorizontalPodAutoscaler with one external metric says."""
    spec = manifest["spec"]
    [metric] = spec["metrics"]
    behavior = spec.get("behavior", {})
    return Hpa(
        fewest=int(spec.get("minReplicas", 1)),
        most=int(spec["maxReplicas"]),
        target=float(metric["external"]["target"]["averageValue"]),
        up=read_rules(behavior.get("scaleUp"), UP),
        down=read_rules(behavior.get("scaleDown"), DOWN),
    )


def read_rules(given: Mapping[str, Any] | None, defaults: Rules) -> Rules:
    """Return the rules of ``behavior.scaleUp`` or ``behavior.scaleDown``, completed."""
    found = given or {}
    policies = tuple(
        Policy(one["type"], int(one["value"]), float(one["periodSeconds"]))
        for one in found.get("policies") or ()
    )
    return Rules(
        window=float(found.get("stabilizationWindowSeconds", defaults.window)),
        policies=policies or defaults.policies,
        select=str(found.get("selectPolicy", defaults.select)),
    )


def wanted(value: float, target: float, pods: int) -> int:
    """Return the replicas that a metric asks for, where so many pods are."""
    ratio = value / (target * pods) if pods else math.inf
    return math.ceil(value / target) if abs(1.0 - ratio) > TOLERANCE else pods


def synced(
    hpa: Hpa, history: History, now: float, replicas: int, value: float | None, pods: int
) -> tuple[int, History]:
    """Return the replicas after a look at the metric, and what is remembered.

    Args:
        replicas: of the Deployment's spec.
        value: of the metric; None if it cannot be had.
        pods: that the Deployment has, as its status says.
    """
    if not history.recommended:
        history = replace(history, recommended=((now, replicas),))
    if replicas == 0:  # scaling is disabled: only somebody else ends that
        return 0, history
    if not hpa.fewest <= replicas <= hpa.most:
        found = min(max(replicas, hpa.fewest), hpa.most)
    elif value is None:
        return replicas, history
    else:
        asked = wanted(value, hpa.target, pods)
        kept = stabilized(hpa, history, now, replicas, asked)
        found = limited(hpa, history, now, replicas, kept)
        oldest = now - max(hpa.up.window, hpa.down.window)
        recent = tuple(one for one in history.recommended if one[0] >= oldest)
        history = replace(history, recommended=(*recent, (now, asked)))
    if found > replicas:
        history = replace(history, added=(*history.added, (now, found - replicas)))
    elif found < replicas:
        history = replace(history, removed=(*history.removed, (now, replicas - found)))
    return found, history


def stabilized(hpa: Hpa, history: History, now: float, replicas: int, asked: int) -> int:
    """Return the replicas as near to the present ones as the windows allow."""
    past = history.recommended
    lowest = min([asked, *(n for at, n in past if at > now - hpa.up.window)])
    highest = max([asked, *(n for at, n in past if at > now - hpa.down.window)])
    return min(max(replicas, lowest), highest)


def limited(hpa: Hpa, history: History, now: float, replicas: int, asked: int) -> int:
    """Return the replicas within the limits, and within what policies allow in their periods."""
    if asked > replicas:
        limit = max(replicas, up_limit(hpa.up, history.added, now, replicas))
        return min(asked, hpa.most, limit)
    if asked < replicas:
        limit = min(replicas, down_limit(hpa.down, history.removed, now, replicas))
        return max(asked, hpa.fewest, limit)
    return asked


def up_limit(rules: Rules, added: Sequence[tuple[float, int]], now: float, replicas: int) -> int:
    if rules.select == "Disabled":
        return replicas
    proposed = []
    for policy in rules.policies:
        start = replicas - changed(added, now, policy.seconds)
        more = policy.value if policy.kind == "Pods" else start * policy.value / 100
        proposed.append(math.ceil(start + more))
    return min(proposed) if rules.select == "Min" else max(proposed)


def down_limit(
    rules: Rules, removed: Sequence[tuple[float, int]], now: float, replicas: int
) -> int:
    if rules.select == "Disabled":
        return replicas
    proposed = []
    for policy in rules.policies:
        start = replicas + changed(removed, now, policy.seconds)
        less = policy.value if policy.kind == "Pods" else start * policy.value / 100
        proposed.append(math.floor(start - less))
    return max(proposed) if rules.select == "Min" else min(proposed)


def changed(events: Sequence[tuple[float, int]], now: float, seconds: float) -> int:
    """Return the replicas that were added or removed in a period."""
    return sum(change for at, change in events if at > now - seconds)
