"""Which connections the chart's NetworkPolicies leave open, of all pairs of endpoints."""

import json

import pytest

from tests.chart.connections import CASES, S3, USERS_OF_STORE, to
from tests.support.chart import NAMESPACE, RELEASE, example_names, find_all, pods, render
from tests.support.network_policies import Endpoint, allowed, isolated

COMPONENTS = ("keeper", "worker", "flower", "redis", "submission", "hook")
PORTS = (53, 80, 443, 5353, 5555, 6379, 6443, 8443, 9000, 9808, 9809)

# Each server outside has an address of its own: a rule to one is none to the others.
SERVERS = {
    "bucket": "203.0.113.1",
    "sts": "203.0.113.2",
    "hub": "203.0.113.3",
    "external-redis": "203.0.113.4",
    "api": "203.0.113.5",
    "node": "169.254.169.254",
    "pod-identity": "169.254.170.23",
    "cache": "169.254.20.10",
    "internet": "198.51.100.1",
}
#: Those that look names up; the node's server of credentials is that of Google's Cloud DNS too.
NAME_SERVERS = ("dns", "cache", "cache-pod", "node")

NARROW = {
    "store": {"peers": [{"ipBlock": {"cidr": "203.0.113.1/32"}}]},
    "credentials": {"peers": [{"ipBlock": {"cidr": "203.0.113.2/32"}}]},
    "hub": {"peers": [{"ipBlock": {"cidr": "203.0.113.3/32"}}]},
    "redis": {"peers": [{"ipBlock": {"cidr": "203.0.113.4/32"}}]},
    "apiServer": {"peers": [{"ipBlock": {"cidr": "203.0.113.5/32"}}]},
}


def own(component: str, release: str = RELEASE, namespace: str = NAMESPACE) -> Endpoint:
    labels = {
        "app.kubernetes.io/name": "virnucpro-fleet",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
    }
    return Endpoint("10.1.0.1", namespace, labels)


ENDPOINTS = {
    **{component: own(component) for component in COMPONENTS},
    "redis-of-other-release": own("redis", release="other"),
    "keeper-of-other-release": own("keeper", release="other"),
    "keeper-of-other-namespace": own("keeper", namespace="other"),
    "pod-in-namespace": Endpoint("10.1.0.2", NAMESPACE, {"app": "notebook"}),
    "pod-elsewhere": Endpoint("10.1.0.3", "other", {"app": "notebook"}),
    "dns": Endpoint("10.1.0.4", "kube-system", {"k8s-app": "kube-dns"}),
    "cache-pod": Endpoint("10.1.0.9", "kube-system", {"k8s-app": "node-local-dns"}),
    "pod-of-system": Endpoint("10.1.0.5", "kube-system", {"k8s-app": "metrics-server"}),
    "keda": Endpoint("10.1.0.6", "keda", {"app": "keda-operator"}),
    "prometheus": Endpoint("10.1.0.7", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "ingress": Endpoint("10.1.0.8", "ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    **{name: Endpoint(address) for name, address in SERVERS.items()},
}


def policies(values, **options):
    found = find_all(render(values, **options), "NetworkPolicy")
    for policy in found:
        policy["metadata"]["namespace"] = NAMESPACE
    return found


def connections(values):
    """Return who may open which connections from or to the pods of the release, but not
    those to the name server: ``["keeper > redis 6379", …]``.
    """
    rules = policies(values)
    absent = {name for name in ("flower", "redis") if not values.get(name, {}).get("enabled", True)}
    own_pods = set(COMPONENTS) - absent
    return sorted(
        f"{source} > {destination} {port}"
        for source in ENDPOINTS.keys() - absent
        for destination in ENDPOINTS.keys() - absent - {"dns", "cache", "cache-pod"}
        for port in PORTS
        if (destination, port) != ("node", 53)
        if (source in own_pods or destination in own_pods)
        and allowed(rules, ENDPOINTS[source], ENDPOINTS[destination], port)
    )


def names_looked_up(values):
    """Return the same for name servers, by UDP and TCP."""
    rules = policies(values)
    return {
        (source, destination, port, protocol)
        for source in COMPONENTS
        for destination in (*NAME_SERVERS, "pod-of-system", "pod-identity", "internet")
        for port in (53, 5353)
        for protocol in ("UDP", "TCP")
        if allowed(rules, ENDPOINTS[source], ENDPOINTS[destination], port, protocol)
    }


@pytest.mark.parametrize("case", CASES)
def test_just_these_connections_are_open(case):
    values, expected = CASES[case]
    narrowed = {**NARROW, **values.get("networkPolicy", {})}
    assert connections({**values, "networkPolicy": narrowed}) == sorted(expected)


@pytest.mark.parametrize("values", [{}, {"store": S3}], ids=["folder", "bucket"])
def test_names_are_looked_up_by_all_but_redis(values):
    assert names_looked_up(values) == {
        (source, server, 53, protocol)
        for source in COMPONENTS
        if source != "redis"
        for server in NAME_SERVERS
        for protocol in ("UDP", "TCP")
    }


def test_openshift_s_name_server_is_given_by_value():
    names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    found = names_looked_up({"networkPolicy": {"dns": {"peers": [names], "ports": [5353]}}})
    assert ("keeper", "dns", 5353, "UDP") in found
    assert ("keeper", "dns", 53, "UDP") not in found


def test_by_default_servers_may_be_anywhere_on_their_port_alone():
    found = connections({"store": S3, "autoscaling": {"mode": "none"}})
    assert [row for row in found if " > internet " in row] == sorted(
        to("internet", 443, *USERS_OF_STORE)
    )


def test_the_policy_of_the_hook_that_fills_weights_comes_and_goes_with_it():
    values = {"weights": {"source": "volume"}}
    objects = render(values)
    weights = [policy for policy in find_all(objects, "NetworkPolicy") if _hooks(policy)]
    [job] = [job for job in find_all(objects, "Job") if "pre-upgrade" in _hooks(job)]
    for policy in weights:
        assert _hooks(policy) == _hooks(job)
        assert _annotation(policy, "hook-delete-policy") == _annotation(job, "hook-delete-policy")
        assert int(_annotation(policy, "hook-weight")) < int(_annotation(job, "hook-weight") or 0)
    assert [policy["metadata"]["name"] for policy in weights] == [f"{RELEASE}-weights"]


def _annotation(item, name):
    return (item["metadata"].get("annotations") or {}).get(f"helm.sh/{name}", "")


def _hooks(item):
    return set(filter(None, _annotation(item, "hook").split(",")))


@pytest.mark.parametrize("example", [None, *example_names()])
def test_no_pod_is_left_open(example):
    objects = render(example=example)
    rules = policies({}, example=example)
    open_pods = [
        f"{pod.label}: {direction}"
        for pod in pods(objects)
        for direction in ("Ingress", "Egress")
        if not isolated(rules, Endpoint("10.1.0.1", NAMESPACE, pod.labels), direction)
    ]
    assert not open_pods


@pytest.mark.parametrize("example", [None, *example_names()])
def test_every_policy_has_pods(example):
    objects = render(example=example)
    found = [Endpoint("10.1.0.1", NAMESPACE, pod.labels) for pod in pods(objects)]
    for policy in policies({}, example=example):
        selected = [pod for pod in found if isolated([policy], pod, "Ingress")]
        assert selected, json.dumps(policy["spec"]["podSelector"])


def test_without_policies_there_are_none():
    assert not policies({"networkPolicy": {"enabled": False}})
