"""Which connections NetworkPolicies allow, by the rules that Kubernetes documents for them.

A block of addresses is compared with every endpoint's address, also a pod's: some networks do that,
others see only addresses outside the cluster. What is refused here, all refuse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Policy = Mapping[str, Any]
Protocol = Literal["TCP", "UDP", "SCTP"]
Direction = Literal["Ingress", "Egress"]


@dataclass(frozen=True)
class Endpoint:
    """A pod, or what has no namespace: a host outside or a node."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels_of_namespace(self) -> Mapping[str, str]:
        """The namespace's labels, with its name, which every namespace has as a label."""
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def allowed(
    policies: Sequence[Policy],
    source: Endpoint,
    destination: Endpoint,
    port: int,
    protocol: Protocol = "TCP",
) -> bool:
    """Whether the source may open a connection: both ends must allow it."""
    return _allows(policies, source, destination, "Egress", port, protocol) and _allows(
        policies, destination, source, "Ingress", port, protocol
    )


def isolated(policies: Sequence[Policy], pod: Endpoint, direction: Direction) -> bool:
    """Whether a policy selects the pod, so that only what policies allow is allowed."""
    return any(_selects(policy, pod, direction) for policy in policies)


def _allows(
    policies: Sequence[Policy],
    pod: Endpoint,
    peer: Endpoint,
    direction: Direction,
    port: int,
    protocol: Protocol,
) -> bool:
    if not isolated(policies, pod, direction):
        return True
    return any(
        _has_port(rule, port, protocol) and _has_peer(rule, policy, peer, direction)
        for policy in policies
        if _selects(policy, pod, direction)
        for rule in policy["spec"].get(direction.lower()) or ()
    )


def _selects(policy: Policy, pod: Endpoint, direction: Direction) -> bool:
    spec = policy["spec"]
    # Without types a policy is one of ingress, and of egress if it has rules for it.
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return (
        bool(pod.namespace)
        and direction in types
        and policy["metadata"]["namespace"] == pod.namespace
        and matches(spec["podSelector"], pod.labels)
    )


def _has_port(rule: Mapping[str, Any], port: int, protocol: Protocol) -> bool:
    # No ports: all of them, as no port in an entry.
    for entry in rule.get("ports") or [{"protocol": protocol}]:
        first = entry.get("port", port)
        last = entry.get("endPort", first if "port" in entry else port)
        if entry.get("protocol", "TCP") == protocol and first <= port <= last:
            return True
    return False


def _has_peer(
    rule: Mapping[str, Any], policy: Policy, peer: Endpoint, direction: Direction
) -> bool:
    peers = rule.get("from" if direction == "Ingress" else "to")
    # No peers: everybody.
    return not peers or any(_is_peer(entry, policy, peer) for entry in peers)


def _is_peer(entry: Mapping[str, Any], policy: Policy, peer: Endpoint) -> bool:
    if "ipBlock" in entry:
        block = entry["ipBlock"]
        address = ip_address(peer.address)
        inside = address in ip_network(block["cidr"])
        return inside and not any(address in ip_network(part) for part in block.get("except") or ())
    if not peer.namespace:
        return False
    if "namespaceSelector" in entry:
        in_namespace = matches(entry["namespaceSelector"], peer.labels_of_namespace)
    else:
        in_namespace = peer.namespace == policy["metadata"]["namespace"]
    return in_namespace and matches(entry.get("podSelector", {}), peer.labels)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"operator {expression['operator']} of a selector")
