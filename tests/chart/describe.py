"""Write what values.yaml says of each value into the chart's README and schema.

``python -m tests.chart.describe`` writes both. The README is by hand up to the mark, and the
schema up to its descriptions.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.chart import CHART

VALUES = CHART / "values.yaml"
README = CHART / "README.md"
SCHEMA = CHART / "values.schema.json"

MARK = "<!-- The rest is made of values.yaml: python -m tests.chart.describe -->\n"

#: Names of maps that are one value each, as a pod has them.
WHOLE = ("resources", "podSecurityContext", "containerSecurityContext")

#: Characters of a line of the schema.
WIDTH = 120

Path = tuple[str, ...]


@dataclass(frozen=True)
class Value:
    path: Path
    default: Any
    comment: str
    section: str  # the heading above it; empty in the first part

    @property
    def name(self) -> str:
        return ".".join(self.path)


def values() -> list[Value]:
    """Return every value of values.yaml, in order."""
    text = VALUES.read_text()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_values(root, (), "", text.splitlines()))


def _values(
    node: yaml.MappingNode, above: Path, inherited: str, lines: list[str]
) -> Iterator[Value]:
    for key, value in node.value:
        path = (*above, key.value)
        line = key.start_mark.line
        comment = _comment(lines, line) or inherited
        if _has_values(path, value):
            yield from _values(value, path, comment, lines)
        else:
            default = yaml.SafeLoader("").construct_document(value)
            yield Value(path, default, comment, _section(lines, line))


def _has_values(path: Path, node: yaml.Node) -> bool:
    """Return whether a node is a map of values, not one value."""
    is_map = isinstance(node, yaml.MappingNode) and bool(node.value)
    return is_map and path[-1] not in WHOLE


def _comment(lines: list[str], line: int) -> str:
    """Return the comment that describes the value of a line."""
    found: list[str] = []
    for text in map(str.strip, reversed(lines[:line])):
        if not text.startswith("#"):
            break
        found.insert(0, text.removeprefix("#").strip())
        if text.startswith("# --"):
            return " ".join(found).removeprefix("--").strip()
    return ""


def _section(lines: list[str], line: int) -> str:
    headings = [text for text in lines[:line] if text.startswith("# --- ")]
    return headings[-1].strip("# -") if headings else ""


def table() -> str:
    """Return the values as tables, one for each section."""
    out: list[str] = []
    section = None
    for value in values():
        if value.section != section:
            section = value.section
            heading = section[:1].upper() + section[1:] if section else "Names, images, logs"
            out += [f"\n### {heading}\n", "| value | default | |", "| --- | --- | --- |"]
        comment = value.comment.replace("|", "\\|")
        out.append(f"| `{value.name}` | {_default(value.default)} | {comment} |")
    return "\n".join([*out, ""])


def _default(value: Any) -> str:
    if value in ("", {}, []):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9)
    return "`" + text.removesuffix("...\n").strip().replace("|", "\\|") + "`"


def readme() -> str:
    """Return the README with the values as they are now."""
    by_hand, mark, _ = README.read_text().partition(MARK)
    return by_hand + (mark or MARK) + table()


def schema() -> dict[str, Any]:
    """Return the schema with the descriptions as they are now."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text())
    for value in values():
        node = found
        for name in value.path:
            node = resolved(found, node)["properties"].get(name)
            if node is None:
                raise SystemExit(f"{value.name} is not in {SCHEMA.name}: write its type there")
        node.pop("description", None)
        if value.comment:
            node["description"] = value.comment
    return found


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return what a node of a schema refers to, or the node."""
    while "$ref" in node:
        target: Any = schema
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def as_text(value: Any, indent: str = "") -> str:
    """Return JSON in which what fits into a line is in one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) < WIDTH or not isinstance(value, dict):
        return line
    inner = indent + "  "
    rows = [f'{inner}"{key}": {as_text(below, inner)}' for key, below in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


if __name__ == "__main__":
    README.write_text(readme())
    SCHEMA.write_text(as_text(schema()) + "\n")
    sys.exit(0)
