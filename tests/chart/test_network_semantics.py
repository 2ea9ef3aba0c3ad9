"""The reading of NetworkPolicies that ``test_network.py`` relies on, on small policies."""

import pytest

from tests.support.network_policies import Endpoint, allowed, isolated

WEB = Endpoint("10.0.0.1", "shop", {"app": "web"}, {"team": "a"})
DATABASE = Endpoint("10.0.0.2", "shop", {"app": "database"}, {"team": "a"})
STRANGER = Endpoint("10.0.0.3", "other", {"app": "web"}, {"team": "b"})
OUTSIDE = Endpoint("203.0.113.7")


def policy(**spec):
    return {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"podSelector": {}, **spec}}


def into_database(*rules):
    selector = {"matchLabels": {"app": "database"}}
    return [policy(podSelector=selector, policyTypes=["Ingress"], ingress=list(rules))]


def test_without_a_policy_everything_is_allowed():
    assert allowed([], STRANGER, DATABASE, 5432)


def test_a_policy_without_rules_refuses_everybody_and_other_pods_stay_open():
    policies = into_database()
    assert not allowed(policies, WEB, DATABASE, 5432)
    assert allowed(policies, STRANGER, WEB, 80)
    assert allowed(policies, DATABASE, WEB, 80), "the policy is one of ingress"


def test_a_policy_of_another_namespace_selects_nothing_here():
    policies = into_database()
    policies[0]["metadata"]["namespace"] = "other"
    assert allowed(policies, WEB, DATABASE, 5432)


WEB_PODS = {"podSelector": {"matchLabels": {"app": "web"}}}
TEAM_B = {"namespaceSelector": {"matchLabels": {"team": "b"}}}
NAMED = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}


@pytest.mark.parametrize(
    ("peers", "who"),
    [
        ([WEB_PODS], [WEB]),  # of the policy's own namespace
        ([TEAM_B], [STRANGER]),
        ([NAMED], [STRANGER]),
        ([{**WEB_PODS, **TEAM_B}], [STRANGER]),  # one peer: both hold
        ([WEB_PODS, TEAM_B], [WEB, STRANGER]),  # two peers: one holds
        ([{"namespaceSelector": {}}], [WEB, STRANGER]),
        ([{"ipBlock": {"cidr": "203.0.113.0/24"}}], [OUTSIDE]),
        ([{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}}], []),
        ([{"ipBlock": {"cidr": "::/0"}}], []),
        ([], [WEB, STRANGER, OUTSIDE]),  # no peers: everybody
    ],
)
def test_peers(peers, who):
    policies = into_database({"from": peers})
    assert [peer for peer in (WEB, STRANGER, OUTSIDE) if allowed(policies, peer, DATABASE, 1)] == (
        who
    )


@pytest.mark.parametrize(
    ("ports", "allowed_ports"),
    [
        ([{"port": 2}], [("TCP", 2)]),
        ([{"port": 2, "protocol": "UDP"}], [("UDP", 2)]),
        ([{"port": 2, "endPort": 3}], [("TCP", 2), ("TCP", 3)]),
        ([{"protocol": "UDP"}], [("UDP", 1), ("UDP", 2), ("UDP", 3)]),
        ([], [(protocol, port) for protocol in ("TCP", "UDP") for port in (1, 2, 3)]),
    ],
)
def test_ports(ports, allowed_ports):
    policies = into_database({"ports": ports})
    assert [
        (protocol, port)
        for protocol in ("TCP", "UDP")
        for port in (1, 2, 3)
        if allowed(policies, WEB, DATABASE, port, protocol)
    ] == allowed_ports


@pytest.mark.parametrize(
    ("expression", "who"),
    [
        ({"key": "app", "operator": "In", "values": ["web", "x"]}, [WEB]),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, [DATABASE]),
        ({"key": "app", "operator": "Exists"}, [WEB, DATABASE]),
        ({"key": "tier", "operator": "DoesNotExist"}, [WEB, DATABASE]),
    ],
)
def test_expressions_select_pods(expression, who):
    policies = [policy(podSelector={"matchExpressions": [expression]}, policyTypes=["Ingress"])]
    assert [pod for pod in (WEB, DATABASE) if isolated(policies, pod, "Ingress")] == who


def test_both_ends_must_allow_a_connection():
    selector = {"matchLabels": {"app": "web"}}
    out_of_web = policy(podSelector=selector, policyTypes=["Egress"], egress=[])
    assert not allowed([*into_database({}), out_of_web], WEB, DATABASE, 5432)
    out_of_web["spec"]["egress"] = [{"ports": [{"port": 5432}]}]
    assert allowed([*into_database({}), out_of_web], WEB, DATABASE, 5432)
    assert not allowed([*into_database(), out_of_web], WEB, DATABASE, 5432)


def test_policies_add_up():
    policies = [*into_database({"from": [WEB_PODS]}), *into_database({"from": [TEAM_B]})]
    assert allowed(policies, WEB, DATABASE, 1)
    assert allowed(policies, STRANGER, DATABASE, 1)


def test_types_follow_from_rules_where_none_are_given():
    assert not isolated([policy(ingress=[{}])], WEB, "Egress")
    assert isolated([policy(egress=[{}])], WEB, "Egress")
    assert isolated([policy(egress=[{}])], WEB, "Ingress")
