"""Rules and dashboard name metrics that there are; Prometheus's own tool accepts all of them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.ops.dashboard import DASHBOARD, panels, read_dashboard
from tests.support.metrics_page import described
from tests.support.promtool import promtool

FOLDER = ROOT / "deploy" / "prometheus"

RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())

CASES = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]

ALL = [rule for group in RULES["groups"] for rule in group["rules"]]

ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}

RECORDED = {rule["record"]: rule["expr"] for rule in ALL if "record" in rule}


#: What is no metric in a query: texts, conditions, times, and lists of labels.
NO_METRICS = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^]]*\]'
    r"|\b(?:by|on|group_left)\b *(?:\([^)]*\))?|\b(?:and|or|unless)\b"
)


def metrics_in(query: str) -> set[str]:
    """Return the metrics that a query names, without those that rules record."""
    bare = NO_METRICS.sub(" ", query)
    for name in RECORDED:
        bare = bare.replace(name, "")
    return set(re.findall(r"(?<![\w$])[a-z]\w*\b(?! *\()", bare))


@pytest.fixture(scope="module")
def known() -> set[str]:
    rows = described("Keeper") + described("Workers")
    histograms = {row.name for row in rows if row.type == "histogram"}
    suffixed = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    return {row.name for row in rows} - histograms | suffixed


def test_rules_name_metrics_that_there_are(known):
    named = {name for rule in ALL for name in metrics_in(rule["expr"])}
    assert len(named) > 20
    assert named - known == set()


def test_the_cases_of_rules_name_metrics_that_there_are(known):
    assert {name for case in CASES for name in metrics_of_case(case)} - known == set()


def test_the_dashboard_names_metrics_that_there_are(known):
    queries = [query for panel in panels() for query, _ in panel.queries]
    queries += [
        variable["definition"].removeprefix("label_values(").partition(", ")[0]
        for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]
        if "definition" in variable
    ]
    named = {name for query in queries for name in metrics_in(query)}
    assert len(named) > 30
    assert named - known == set()


def test_every_query_of_the_dashboard_is_of_the_fleet_that_is_chosen():
    for panel in read_dashboard()["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\bvirnucpro_\w+", target["expr"])
            assert names
            assert target["expr"].count('{fleet=~"$fleet"') == len(names), target["expr"]


def test_every_rule_keeps_fleets_apart():
    """An aggregation, or a match of labels, without `fleet` mixes those of one Prometheus."""
    for rule in ALL:
        lists = re.findall(r"\b(?:by|on) *\(([^)]*)\)", rule["expr"])
        mixing = [labels for labels in lists if "fleet" not in labels.split(", ")]
        assert mixing in ([], [""]), rule
        assert mixing == [] or "or on () absent(" in rule["expr"]
        assert not re.search(r"\b(?:sum|max|min|avg|count|group) *\((?!.*\bby\b)", rule["expr"])


def test_no_share_is_above_one():
    """A pack is counted at its end, in whichever interval that is."""
    queries = [query for panel in panels() for query, _ in panel.queries]
    shares = [text for text in (*queries, *RECORDED.values()) if "device_busy_seconds" in text]
    assert len(shares) > 1
    assert all(re.search(r"clamp_max\(rate\([^()]*\), 1\)", text) for text in shares)


def test_the_panels_of_the_dashboard_have_room_of_their_own_and_say_what_they_show():
    page = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] in ("row", "stat") or panel["description"]
    ids = [panel["id"] for panel in page["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_what_to_do_and_where_to_read_on(name):
    rule: dict[str, Any] = ALERTS[name]
    assert rule["labels"]["severity"] in ("warning", "critical")
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/operate.md#{name.lower()}"
    assert f"\n### {name}\n" in (ROOT / "docs" / "operate.md").read_text()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_in_a_case_and_not_in_another(name):
    checks = [check for case in CASES for check in case.get("promql_expr_test", ())]
    fires = [name in json.dumps(check["exp_samples"]) for check in checks]
    assert any(fires)
    with_its_metrics = [
        check
        for case in CASES
        if metrics_of_alert(name) & metrics_of_case(case)
        for check in case.get("promql_expr_test", ())
        if name not in json.dumps(check["exp_samples"])
    ]
    assert with_its_metrics


def metrics_of_alert(name: str) -> set[str]:
    expression = ALERTS[name]["expr"]
    texts = [expression, *(text for record, text in RECORDED.items() if record in expression)]
    return {metric for text in texts for metric in metrics_in(text)}


def metrics_of_case(case: dict[str, Any]) -> set[str]:
    return {name for row in case["input_series"] for name in metrics_in(row["series"])}


def test_promtool_accepts_the_rules_and_their_cases():
    promtool("check", "rules", FOLDER / "rules.yaml")
    promtool("test", "rules", FOLDER / "rules_test.yaml")


def test_a_case_fails_if_its_alert_does_not_fire(tmp_path: Path):
    """That what the cases expect is compared at all."""
    shutil.copy(FOLDER / "rules_test.yaml", tmp_path)
    text = (FOLDER / "rules.yaml").read_text()
    (tmp_path / "rules.yaml").write_text(text.replace("> 0.8", "> 0.9"))
    with pytest.raises(AssertionError, match="VirnucproRedisMemory"):
        promtool("test", "rules", tmp_path / "rules_test.yaml")
