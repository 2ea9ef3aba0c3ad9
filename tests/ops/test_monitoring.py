"""Every query of the dashboard has values in a run with faults, and every rule is evaluated."""

import json
import math
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.dashboard import DASHBOARD, panels
from tests.ops.monitored_run import Prometheus, monitored_run
from tests.ops.picture import draw
from tests.support.promtool import check_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus"
    ),
]

#: Queries that the faults of the run must be seen in, and the least that they reach.
SEEN = {
    'virnucpro_job_info{state="finished"}': 1,
    'virnucpro_job_blocked{reason="no_workers"}': 1,
    "max(virnucpro_demand_batches)": 10,
    "max(virnucpro_job_leases_lost_total)": 1,
    'max(virnucpro_keeper_requeued_batches_total{reason="lease_lost"})': 1,
    'max(virnucpro_worker_process_restarts_total{cause="killed"})': 1,
    'max(virnucpro_job_rows_unstable_at_rung{rung="fp16"})': 12,
    'sum(virnucpro_worker_rows_total{outcome="unstable"})': 12,
    'max(virnucpro_dead_letters{kind="unreadable"})': 1,
    "sum(virnucpro_worker_store_errors_total)": 1,
    "max(model:virnucpro_worker_tokens:rate5m)": 1,
    'ALERTS{alertname="VirnucproDeadLetters", alertstate="firing"}': 1,
    'ALERTS{alertname="VirnucproInstability"}': 1,
}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with monitored_run(tmp_path_factory.mktemp("ops")) as found:
        yield found


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_no_query_of_a_panel_is_empty(panel, prometheus):
    for query, _ in panel.queries:
        values = [value for line in prometheus.series(query).values() for _, value in line]
        assert [value for value in values if not math.isnan(value)], query


@pytest.mark.parametrize("query", SEEN)
def test_a_fault_is_seen(query, prometheus):
    values = [value for line in prometheus.series(query).values() for _, value in line]
    assert max(values, default=0) >= SEEN[query]


def test_promtool_accepts_what_keepers_and_workers_export(prometheus):
    targets = prometheus.get("targets")["activeTargets"]
    assert len(targets) == 3
    for target in targets:
        with urllib.request.urlopen(target["scrapeUrl"], timeout=30) as answer:
            check_metrics(answer.read().decode())


def test_every_rule_is_evaluated_without_an_error(prometheus):
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 20
    assert [rule for rule in rules if rule["health"] != "ok"] == []


def test_the_lists_of_the_dashboard_have_values(prometheus):
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\(([^,]+), (\w+)\)", variable["definition"])
            assert found is not None
            series, label = found[1].replace("$fleet", ".*"), found[2]
            assert prometheus.get(f"label/{label}/values", **{"match[]": series})


def test_what_the_queries_give_can_be_drawn(prometheus, tmp_path: Path):
    draw(prometheus, tmp_path / "dashboard.png")
    assert 20_000 < (tmp_path / "dashboard.png").stat().st_size < 150_000
