"""What the chart gives Prometheus's operator and Grafana, from the files of ``deploy/``."""

import json
import re
import shutil

import pytest
import yaml

from tests.support.chart import HELMS, NAMESPACE, RELEASE, ROOT, find, find_all, pods, render
from tests.support.promtool import promtool

ALL = {"monitoring": {"podMonitor": True, "rules": True, "dashboard": True}}
FLEET = f"{NAMESPACE}/{RELEASE}"
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"


def test_nothing_of_it_is_there_unless_asked_for():
    kinds = {item["kind"] for item in render()}
    assert not kinds & {"PodMonitor", "PrometheusRule"}
    assert not [item for item in find_all(render(), "ConfigMap") if "dashboard" in str(item)]


@pytest.mark.parametrize("helm", HELMS)
def test_the_rules_are_those_of_the_file_with_their_own_templates(helm):
    """Where Prometheus is told otherwise what to scrape, they are of whatever it scrapes."""
    values = {"monitoring": {"rules": True}}
    spec = find(render(values, helm=helm), "PrometheusRule")["spec"]
    assert spec == yaml.safe_load(RULES.read_text())
    assert "{{ $labels.job_name }}" in str(spec)


@pytest.mark.parametrize("helm", HELMS)
def test_the_rules_of_a_release_are_those_of_the_file_for_its_own_series(helm):
    spec = find(render(ALL, helm=helm), "PrometheusRule")["spec"]
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        names = re.findall(r"__name__|(?:\w+:)?\bvirnucpro_\w+(?::\w+)?", rule["expr"])
        assert rule["expr"].count(f'{{fleet="{FLEET}"') == len(names) > 0, rule
        if "alert" in rule:
            assert rule["labels"].pop("fleet") == FLEET
        rule["expr"] = rule["expr"].replace(f'{{fleet="{FLEET}"}}', "")
        rule["expr"] = rule["expr"].replace(f'{{fleet="{FLEET}",', "{")
    assert spec == yaml.safe_load(RULES.read_text())


def test_two_releases_in_one_prometheus_say_each_what_is_wrong_with_it(tmp_path):
    """Of one all is gone, also its metrics; the other's keeper acts, and its Redis is away."""
    for namespace in ("a", "b"):
        spec = find(render(ALL, namespace=namespace), "PrometheusRule")["spec"]
        for group in spec["groups"]:
            group["name"] += f"-{namespace}"
        (tmp_path / f"{namespace}.yaml").write_text(yaml.safe_dump(spec))
    series = {"virnucpro_keeper_acting": 1, "virnucpro_build_info": 1, "virnucpro_redis_up": 0}
    of_b = f'{{fleet="b/{RELEASE}",instance="k"}}'
    firing = [
        {"labels": f'{{alertname="{alert}", fleet="{namespace}/{RELEASE}"}}', "value": 1}
        for alert, namespace in (("VirnucproKeeperAbsent", "a"), ("VirnucproRedisDown", "b"))
    ]
    case = {
        "interval": "1m",
        "input_series": [
            {"series": name + of_b, "values": f"{value}+0x20"} for name, value in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'sum by (alertname, fleet) (ALERTS{alertstate="firing"})',
                "eval_time": "10m",
                "exp_samples": firing,
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["a.yaml", "b.yaml"], "tests": [case]})
    )
    promtool("test", "rules", tmp_path / "test.yaml")


@pytest.mark.parametrize("helm", HELMS)
def test_alerts_link_to_the_page_that_is_given(helm):
    page = "https://git.example/fleet/docs/operate.md"
    values = {"monitoring": {"rules": True, "runbook": page}}
    spec = find(render(values, helm=helm), "PrometheusRule")["spec"]
    links = re.findall(r"'runbook_url': '([^']*)'", str(spec))
    assert len(links) > 10
    assert f"{page}#virnucproredisdown" in links
    assert all(link.startswith(f"{page}#virnucpro") for link in links)


def test_the_rules_pass_their_own_cases(tmp_path):
    spec = find(render({"monitoring": {"rules": True}}), "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    shutil.copy(RULES.with_name("rules_test.yaml"), tmp_path)
    promtool("check", "rules", tmp_path / "rules.yaml")
    promtool("test", "rules", tmp_path / "rules_test.yaml")


@pytest.mark.parametrize("helm", HELMS)
def test_the_dashboard_is_that_of_the_file(helm):
    config = find(render(ALL, helm=helm), "ConfigMap", "dashboard")
    [text] = config["data"].values()
    assert json.loads(text) == json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())


def test_grafana_s_sidecar_finds_the_dashboard_by_a_label():
    values = {"monitoring": {"dashboard": True, "dashboardLabel": "dashboards"}}
    labels = find(render(values), "ConfigMap", "dashboard")["metadata"]["labels"]
    assert labels["dashboards"] == "1"


@pytest.mark.parametrize("component", ["keeper", "worker"])
def test_a_pod_monitor_selects_pods_and_a_port_that_they_have(component):
    objects = render(ALL)
    spec = find(objects, "PodMonitor", component)["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    selected = [pod for pod in pods(objects) if wanted <= pod.labels.items()]
    assert {pod.component for pod in selected} == {component}
    [endpoint] = spec["podMetricsEndpoints"]
    for pod in selected:
        ports = {
            port["name"]: port["containerPort"]
            for container in pod.containers()
            for port in container.get("ports", ())
        }
        assert ports[endpoint["port"]] == {"keeper": 9808, "worker": 9809}[component]


def test_an_instance_is_named_as_its_pod_and_a_fleet_as_its_release():
    for monitor in find_all(render(ALL), "PodMonitor"):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"] == [
            {"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"},
            {"targetLabel": "fleet", "replacement": FLEET},
        ]


def test_the_operator_selects_its_objects_by_labels():
    values = {"monitoring": {**ALL["monitoring"], "labels": {"release": "kube-prometheus-stack"}}}
    objects = render(values)
    found = find_all(objects, "PodMonitor") + find_all(objects, "PrometheusRule")
    assert len(found) == 3
    for item in found:
        assert item["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_a_pool_is_not_missed_while_a_pod_may_still_become_ready():
    rules = find(render(ALL), "PrometheusRule")["spec"]["groups"]
    [alert] = [
        rule
        for group in rules
        for rule in group["rules"]
        if rule.get("alert") == "VirnucproDemandWithoutWorkers"
    ]
    worker = find(render(ALL), "Deployment", "esm2-650m")["spec"]
    assert int(alert["for"].removesuffix("m")) * 60 > worker["progressDeadlineSeconds"]
