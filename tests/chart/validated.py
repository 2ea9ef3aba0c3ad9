"""Which tool says that objects of a kind are valid."""

from tests.support.schemas import KUBERNETES

SCHEMAS = f"kubernetes-validate --strict, {', '.join(KUBERNETES)}"

KINDS_OF_KUBERNETES = (
    *("ConfigMap", "CronJob", "DaemonSet", "Deployment", "HorizontalPodAutoscaler", "Ingress"),
    *("Job", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "Role"),
    *("RoleBinding", "Secret", "Service", "ServiceAccount", "StatefulSet"),
)

#: What each kind that the chart renders is validated with.
VALIDATED = {
    **dict.fromkeys(KINDS_OF_KUBERNETES, SCHEMAS),
    "ScaledObject": "KEDA's CRD, made strict, and its list of what scalers read",
    "PrometheusRule": "promtool, its groups; no schema of the object",
    "PodMonitor": "no schema: labels and ports compared with the pods",
    "HTTPRoute": "no schema: its Service is looked up",
}


def table() -> list[str]:
    """Return the lines of a table of kinds and tools."""
    by_tool: dict[str, list[str]] = {}
    for kind, tool in VALIDATED.items():
        by_tool.setdefault(tool, []).append(kind)
    return [f"{', '.join(kinds)}: {tool}" for tool, kinds in by_tool.items()]
