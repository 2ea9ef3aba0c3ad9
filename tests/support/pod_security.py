"""What a pod lacks of the Pod Security Standard "restricted", as Kubernetes publishes it.

"Restricted" includes what "baseline" forbids. What concerns Windows is left out.
"""

from collections.abc import Iterator
from typing import Any

Spec = dict[str, Any]

#: Kinds of volumes that "restricted" allows.
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}

SYSCTLS = {
    *(
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
    ),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}

SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(pod: Spec, annotations: dict[str, str] | None = None) -> list[str]:
    """Return what the spec of a pod has that "restricted" forbids, or lacks that it asks for."""
    found = [*_of_pod(pod, annotations or {})]
    for container in containers(pod):
        found += [f"{container['name']}: {text}" for text in _of_container(container, pod)]
    return found


def containers(pod: Spec) -> list[Spec]:
    groups = ("initContainers", "containers", "ephemeralContainers")
    return [container for group in groups for container in pod.get(group) or ()]


def _of_pod(pod: Spec, annotations: dict[str, str]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} is true"
    for volume in pod.get("volumes") or ():
        kinds = set(volume) - {"name"}
        if kinds - VOLUMES:
            yield f"the volume {volume['name']} is {', '.join(sorted(kinds))}"
    context = pod.get("securityContext") or {}
    for sysctl in context.get("sysctls") or ():
        if sysctl["name"] not in SYSCTLS:
            yield f"the sysctl {sysctl['name']}"
    yield from _of_context(context)
    for key, value in annotations.items():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not (
            value in ("", "runtime/default") or value.startswith("localhost/")
        ):
            yield f"the AppArmor profile {value}"


def _of_context(context: Spec) -> Iterator[str]:
    """Yield what neither a pod nor a container may have."""
    options = context.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield "seLinuxOptions"
    profile = context.get("appArmorProfile") or {}
    if profile.get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield f"appArmorProfile is {profile['type']}"
    seccomp = context.get("seccompProfile") or {}
    if seccomp.get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield f"seccompProfile is {seccomp['type']}"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"


def _of_container(container: Spec, pod: Spec) -> Iterator[str]:
    context = container.get("securityContext") or {}
    above = pod.get("securityContext") or {}
    yield from _of_context(context)
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "capabilities are not dropped"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield f"capabilities are added: {capabilities['add']}"
    if not context.get("runAsNonRoot", above.get("runAsNonRoot")):
        yield "runAsNonRoot is not true"
    if not context.get("seccompProfile", above.get("seccompProfile")):
        yield "no seccompProfile"
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield f"hostPort {port['hostPort']}"
    for moment in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _of_handler(moment, container.get(moment) or {})
    for moment, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            yield from _of_handler(moment, handler)


def _of_handler(moment: str, handler: Spec) -> Iterator[str]:
    """Yield the host that a probe or a hook asks: it must be the pod."""
    for how in ("httpGet", "tcpSocket"):
        if (handler.get(how) or {}).get("host"):
            yield f"{moment} asks the host {handler[how]['host']}"
