"""What KEDA does with a ScaledObject of the chart, in functions that change nothing; how it asks.

This stands for KEDA 2.19 and later where no cluster can be had; ``before_2_19`` is what older ones
do. Each rule is KEDA's:

===============  ============================================================================
``read_scaled``  defaults: ``apis/keda/v1alpha1``, ``pkg/scaling/executor/scale_executor.go``.
                 ``controllers/keda/hpa.go`` makes the HorizontalPodAutoscaler, whose fewest
                 replicas are 1 at least
``ask``          ``pkg/scalers/metrics_api_scaler.go``: any status but 200, and any answer
                 without a number, is an error
``measured``     ``pkg/fallback/fallback.go``, ``GetMetricsWithFallback``: after more errors in
                 a row than ``failureThreshold``, the metric is the target times the fallback's
                 replicas. Looks of KEDA and of the HorizontalPodAutoscaler count
``polled``       ``pkg/scaling/executor/scale_scaledobjects.go``, ``RequestScale``: from 0 to 1,
                 and to 0 after the cooldown. An error is no demand if the fallback has 0
                 replicas. ``pkg/scaling/scale_handler.go``: a fallback counts as demand
``synced``       the HorizontalPodAutoscaler asks for the metric through KEDA
===============  ============================================================================
"""

import json
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from tests.chart import hpa
from tests.chart.hpa import History, Hpa

#: Seconds that a keeper's answer may take (``KEDA_HTTP_DEFAULT_TIMEOUT``).
ANSWER_SECONDS = 3.0

PAUSED = "autoscaling.keda.sh/paused"


@dataclass(frozen=True)
class Fallback:
    """What counts while the metric cannot be had."""

    replicas: int
    failures: int  # that are too few for it
    behavior: str = "static"

    def counted(self, replicas: int) -> int:
        """Return the replicas that count, where there are so many."""
        return {
            "static": self.replicas,
            "currentReplicas": replicas,
            "currentReplicasIfHigher": max(replicas, self.replicas),
            "currentReplicasIfLower": min(replicas, self.replicas),
        }[self.behavior]


@dataclass(frozen=True)
class Scaled:
    """A ScaledObject with one trigger of type ``metrics-api``."""

    url: str
    value_location: str
    activation: float
    polling: float  # seconds, as are all that follow
    cooldown: float
    first_cooldown: float
    fewest: int
    idle: int | None
    fallback: Fallback | None
    paused: bool
    hpa: Hpa
    before_2_19: bool = False


@dataclass(frozen=True)
class State:
    """The replicas that the Deployment should have, and what both autoscalers remember."""

    replicas: int
    created: float = 0.0
    active_at: float | None = None
    failures: int = 0
    history: History = field(default_factory=History)


def read_scaled(manifest: Mapping[str, Any], *, before_2_19: bool = False) -> Scaled:
    """Return what a rendered ScaledObject says."""
    spec = manifest["spec"]
    [trigger] = spec["triggers"]
    given = trigger["metadata"]
    assert trigger["type"] == "metrics-api", trigger
    assert trigger.get("metricType", "AverageValue") == "AverageValue", trigger
    behavior = (
        (spec.get("advanced") or {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
    )
    fewest = int(spec.get("minReplicaCount", 0))
    fallback = spec.get("fallback")
    return Scaled(
        url=str(given["url"]),
        value_location=str(given["valueLocation"]),
        activation=float(given.get("activationTargetValue", 0)),
        polling=float(spec.get("pollingInterval", 30)),
        cooldown=float(spec.get("cooldownPeriod", 300)),
        first_cooldown=float(spec.get("initialCooldownPeriod", 0)),
        fewest=fewest,
        idle=spec.get("idleReplicaCount"),
        fallback=fallback
        and Fallback(
            int(fallback["replicas"]),
            int(fallback["failureThreshold"]),
            fallback.get("behavior", "static"),
        ),
        paused=manifest["metadata"].get("annotations", {}).get(PAUSED, "false") == "true",
        hpa=Hpa(
            fewest=max(fewest, 1),
            most=int(spec.get("maxReplicaCount", 100)),
            target=float(given["targetValue"]),
            up=hpa.read_rules(behavior.get("scaleUp"), hpa.UP),
            down=hpa.read_rules(behavior.get("scaleDown"), hpa.DOWN),
        ),
        before_2_19=before_2_19,
    )


def ask(url: str, value_location: str) -> float | None:
    """Return the number that a server gives; None for an error."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            found = json.load(answer) if answer.status == 200 else None
        value = reduce(lambda within, name: within[name], value_location.split("."), found)
        return float(value)
    return None


def measured(scaled: Scaled, state: State, value: float | None) -> tuple[float | None, bool, State]:
    """Return the metric, None for an error, whether it is the fallback's, and the state."""
    if value is not None:
        return value, False, replace(state, failures=0)
    state = replace(state, failures=state.failures + 1)
    if scaled.fallback is None or state.failures <= scaled.fallback.failures:
        return None, False, state
    return scaled.hpa.target * scaled.fallback.counted(state.replicas), True, state


def polled(scaled: Scaled, state: State, now: float, value: float | None) -> State:
    """Return the state after KEDA's own look at the demand, which starts and ends the last pod."""
    if scaled.paused:
        return state
    if scaled.before_2_19:
        fallen, failed = False, value is None
    else:
        _, fallen, state = measured(scaled, state, value)
        failed = value is None and not fallen
    if fallen or (value is not None and value > scaled.activation):
        if state.replicas == 0 or (scaled.idle is not None and state.replicas < scaled.fewest):
            return replace(state, replicas=max(scaled.fewest, 1), active_at=now)
        return replace(state, active_at=now)
    if failed and (scaled.fallback is None or scaled.fallback.replicas != 0):
        return state
    if (scaled.idle is not None and state.replicas > scaled.idle) or (
        state.replicas > 0 and scaled.fewest == 0
    ):
        return cooled(scaled, state, now)
    if scaled.idle is None and state.replicas < scaled.fewest:
        return replace(state, replicas=scaled.fewest)
    return state


def cooled(scaled: Scaled, state: State, now: float) -> State:
    """Return the state without a pod if there has been no demand for the cooldown."""
    if state.active_at is None:
        is_over = state.created + scaled.first_cooldown < now
    else:
        is_over = state.active_at + scaled.cooldown < now
    left = scaled.fewest if scaled.idle is None else scaled.idle
    return replace(state, replicas=left) if is_over else state


def synced(
    scaled: Scaled, state: State, now: float, value: float | None, pods: int | None = None
) -> State:
    """Return the state after a look of the HorizontalPodAutoscaler.

    Args:
        pods: that the Deployment has; None: as many as it should.
    """
    if scaled.paused:
        return state
    if state.replicas > 0:  # at 0 it does not ask
        value, _, state = measured(scaled, state, value)
    replicas, history = hpa.synced(
        scaled.hpa,
        state.history,
        now,
        state.replicas,
        value,
        state.replicas if pods is None else pods,
    )
    return replace(state, replicas=replicas, history=history)


class Autoscaler:
    """KEDA and the HorizontalPodAutoscaler of one ScaledObject, on a clock that others turn."""

    def __init__(
        self, scaled: Scaled, look: Callable[[], float | None], state: State | None = None
    ) -> None:
        """Create an autoscaler of a Deployment.

        Args:
            look: asks for the demand, as ``ask`` does.
        """
        self.scaled = scaled
        self.look = look
        self.state = state or State(replicas=0)
        self.value: float | None = None  # of the last look
        self._next_poll = self._next_sync = self.state.created

    @property
    def replicas(self) -> int:
        return self.state.replicas

    def turn(self, now: float, pods: int | None = None) -> int:
        """Do what is due; return the replicas that there should be."""
        if now >= self._next_poll:
            self._next_poll = now + self.scaled.polling
            self.value = self.look()
            self.state = polled(self.scaled, self.state, now, self.value)
        if now >= self._next_sync:
            self._next_sync = now + hpa.SYNC_SECONDS
            value = self.look() if self.state.replicas else None
            self.state = synced(self.scaled, self.state, now, value, pods)
        return self.replicas
