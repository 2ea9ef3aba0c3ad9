"""What the chart's files say, and the pages about them, without rendering anything."""

import re
from typing import Any

import pytest
import yaml

from tests.chart.copies import FOLDER, SOURCES
from tests.chart.describe import README, SCHEMA, VALUES, as_text, readme, resolved, schema, values
from tests.support.chart import CHART, ROOT, example, example_names

#: What a pool has and `poolDefaults` has not.
OF_POOLS = {"name"}

SCHEMA_NOW = schema()

#: Labels that the operator gives to what it scrapes in pods.
TARGET_LABELS = {"namespace", "container", "pod", "job", "endpoint", "instance", "fleet"}


def test_the_chart_has_the_files_as_they_are_now():
    """If not: python -m tests.chart.copies."""
    assert {path.name for path in FOLDER.iterdir()} == set(SOURCES)
    for name, source in SOURCES.items():
        assert (FOLDER / name).read_bytes() == source.read_bytes(), name


def test_no_file_of_the_chart_is_a_link():
    """Tools that fetch a chart from Git drop links to what is outside of it."""
    assert not [path for path in CHART.rglob("*") if path.is_symlink()]


def names_in(node: dict[str, Any], above: tuple[str, ...] = ()) -> set[str]:
    """Return the names of all values that a schema knows, without those of maps of any form."""
    node = resolved(SCHEMA_NOW, node)
    if node.get("additionalProperties") is not False or "properties" not in node:
        return {".".join(above)}
    return set().union(
        *(names_in(below, (*above, key)) for key, below in node["properties"].items())
    )


def test_the_readme_and_the_schema_say_what_values_yaml_says():
    """If not: python -m tests.chart.describe."""
    assert README.read_text() == readme()
    assert SCHEMA.read_text() == as_text(schema()) + "\n"


def test_every_value_is_in_the_schema_and_no_other():
    named = {value.name for value in values()}
    known = names_in(SCHEMA_NOW)
    whole = {name for name in named if any(other.startswith(f"{name}.") for other in known)}
    known = {name for name in known if not any(name.startswith(f"{above}.") for above in whole)}
    own = {f"poolDefaults.{name}" for name in OF_POOLS} | {"global"}
    assert known - own == named - whole


def test_every_value_is_in_the_table_of_the_readme():
    rows = re.findall(r"^\| `([\w.]+)` \|", README.read_text(), re.MULTILINE)
    assert rows == [value.name for value in values()]
    assert len(rows) == len(set(rows)) > 150


def test_every_comment_about_a_value_is_in_the_table():
    """None is above a line that has no value, or lost in one above."""
    comments = len(re.findall(r"^ *# -- ", VALUES.read_text(), re.MULTILINE))
    distinct = {value.comment for value in values() if value.comment}
    assert comments >= len(distinct) > 100
    for comment in re.findall(r"^ *# -- (.{1,40})", VALUES.read_text(), re.MULTILINE):
        assert any(text.startswith(comment) for text in distinct), comment


@pytest.mark.parametrize("name", example_names())
def test_an_example_says_something_other_than_the_defaults(name):
    """But for its pools, which may be the default's, written out."""
    given = yaml.safe_load(example(name).read_text())
    defaults = yaml.safe_load(VALUES.read_text())
    assert same(given, defaults) - {"pools"} == set()
    assert f"values-{name}.yaml" in README.read_text()


def same(given: dict[str, Any], defaults: dict[str, Any], above: str = "") -> set[str]:
    """Return the names of values that are those of the defaults."""
    found: set[str] = set()
    for key, value in given.items():
        if value == defaults.get(key):
            found.add(above + key)
        elif isinstance(value, dict):
            found |= same(value, defaults.get(key) or {}, f"{above}{key}.")
    return found


def test_the_chart_has_no_examples_that_the_readme_does_not_name():
    named = set(re.findall(r"values-[\w-]+\.yaml", README.read_text()))
    assert named == {path.name for path in CHART.glob("values-*.yaml")}


def test_the_page_names_the_same_least_versions_as_the_chart_s_readme():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    section = page.partition("\n## From zero")[2].partition("\n## ")[0]
    for what in (r"KEDA\]\(https://keda.sh\)\s+(\S+)\s+or\s+newer", r"Helm\s+(\S+)\s+or\s+4"):
        [here], [there] = (re.findall(what, text) for text in (section, README.read_text()))
        assert here == there


def test_no_metric_has_a_label_that_the_operator_sets():
    rows = re.findall(
        r"^\| `\w+` \| \w+ \| ([^|]*) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    labels = {label for row in rows for label in re.findall(r"`(\w+)`", row)}
    assert {"model", "pool", "job_name"} <= labels
    assert not labels & TARGET_LABELS
