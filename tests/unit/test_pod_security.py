"""The stand-in for Pod Security admission refuses each thing that the standard names."""

import copy
from typing import Any

import pytest

from tests.support.pod_security import violations

GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "main",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}

#: What a pod, and what its container may not have.
OF_PODS: list[dict[str, Any]] = [
    {"hostNetwork": True},
    {"hostPID": True},
    {"hostIPC": True},
    {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
    {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}},
    {"securityContext": {"runAsNonRoot": True}},
    {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "Unconfined"}}},
    *(
        {"securityContext": {**GOOD["securityContext"], **more}}
        for more in (
            {"runAsUser": 0},
            {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
            {"seLinuxOptions": {"type": "spc_t"}},
            {"seLinuxOptions": {"user": "system_u"}},
            {"appArmorProfile": {"type": "Unconfined"}},
        )
    ),
]

OF_CONTAINERS: list[dict[str, Any]] = [
    {"ports": [{"containerPort": 80, "hostPort": 80}]},
    {"livenessProbe": {"httpGet": {"port": 80, "host": "169.254.169.254"}}},
    {"lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}}},
    {"securityContext": {}},
    *(
        {"securityContext": {**GOOD["containers"][0]["securityContext"], **more}}
        for more in (
            {"privileged": True},
            {"allowPrivilegeEscalation": True},
            {"procMount": "Unmasked"},
            {"capabilities": {"drop": ["NET_RAW"]}},
            {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
            {"runAsNonRoot": False},
            {"runAsUser": 0},
            {"seccompProfile": {"type": "Unconfined"}},
        )
    ),
]


def test_a_pod_with_all_that_is_asked_for_passes():
    assert violations(GOOD) == []


def test_a_container_may_bind_low_ports():
    pod = copy.deepcopy(GOOD)
    pod["containers"][0]["securityContext"]["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    assert violations(pod) == []


@pytest.mark.parametrize("change", OF_PODS, ids=str)
def test_a_pod_is_refused(change):
    assert len(violations({**GOOD, **change})) == 1


@pytest.mark.parametrize("group", ["initContainers", "containers", "ephemeralContainers"])
@pytest.mark.parametrize("change", OF_CONTAINERS, ids=str)
def test_a_container_is_refused(change, group):
    pod = copy.deepcopy(GOOD)
    pod[group] = [{**pod["containers"][0], **change}]
    assert violations(pod)


def test_an_unconfined_profile_in_an_annotation_is_refused():
    key = "container.apparmor.security.beta.kubernetes.io/main"
    assert violations(GOOD, {key: "unconfined"})
    assert violations(GOOD, {key: "runtime/default"}) == []
