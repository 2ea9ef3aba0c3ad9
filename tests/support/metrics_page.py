"""The metrics that docs/metrics.md describes, and those that a registry has."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "metrics.md"

#: Prefixes of the project's metrics, and of those that Prometheus's clients have of a process.
PREFIXES = ("virnucpro_", "process_")


class Row(NamedTuple):
    """A row of a table of metrics."""

    name: str  # as it is exported; of a histogram, without the suffixes
    type: str
    labels: str
    meaning: str


def described(heading: str) -> list[Row]:
    """Return the rows of the table in a section of the page."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith(tuple(f"| `{prefix}" for prefix in PREFIXES))
    ]
    return [Row(*row) for row in cells]


def exported(registry: CollectorRegistry) -> list[Row]:
    """Return the metrics of a registry, whether or not they have values."""
    return sorted(row for row in rows_of(registry) if row.name.startswith(PREFIXES))


def rows_of(registry: CollectorRegistry) -> Iterator[Row]:
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            yield row(collector, collector._name, collector._type, collector._documentation)
        else:
            describe = getattr(collector, "describe", collector.collect)
            for family in describe():
                yield row(family, family.name, family.type, family.documentation)


def row(metric: object, name: str, kind: str, meaning: str) -> Row:
    labels = ", ".join(getattr(metric, "_labelnames", ()))
    return Row(f"{name}_total" if kind == "counter" else name, kind, labels, meaning)


def markdown(rows: list[Row]) -> str:
    """Return rows as the page has them."""
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, kind, labels, meaning in rows:
        shown = ", ".join(f"`{label}`" for label in labels.split(", ") if label)
        lines.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
    return "\n".join(lines)
