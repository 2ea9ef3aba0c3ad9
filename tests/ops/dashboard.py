"""The panels of the Grafana dashboard, and their queries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.conftest import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"

#: What Grafana puts in place of its variables.
VARIABLES = {
    "$__rate_interval": "15s",
    **dict.fromkeys(("$fleet", "$pool", "$model", "$job_name"), ".*"),
}


@dataclass(frozen=True)
class Panel:
    """A panel: its queries with the texts of their legends."""

    title: str
    kind: str
    unit: str
    stacked: bool
    row: str
    queries: tuple[tuple[str, str], ...]
    place: tuple[int, int, int, int]  # x, y, width, height
    texts: Mapping[str, str]  # shown in place of numbers


def read_dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[Panel]:
    """Return the panels with queries, in the order of the page."""
    found, row = [], ""
    for panel in read_dashboard()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        defaults, grid = panel["fieldConfig"]["defaults"], panel["gridPos"]
        stacking = defaults.get("custom", {}).get("stacking", {"mode": "none"})
        found.append(
            Panel(
                title=panel["title"],
                kind=panel["type"],
                unit=defaults["unit"],
                stacked=stacking["mode"] == "normal",
                row=row,
                queries=tuple(
                    (substituted(target["expr"]), target["legendFormat"])
                    for target in panel["targets"]
                ),
                place=(grid["x"], grid["y"], grid["w"], grid["h"]),
                texts={
                    number: shown["text"]
                    for mapping in defaults.get("mappings", ())
                    for number, shown in mapping["options"].items()
                },
            )
        )
    return found


def substituted(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query
