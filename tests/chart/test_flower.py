"""Flower of the chart: with a login, without credentials of the store, behind a proxy by value."""

from urllib.request import urlopen

import pytest

from tests.support.chart import env_of, find, find_all, pod_of, render
from tests.support.flower import running_flower

INGRESS = {"ingress": {"enabled": True, "host": "fleet.example", "className": "nginx"}}
ROUTE = {
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "gateway"}],
        "hostnames": ["fleet.example"],
    }
}


def flower(values=None, **more):
    objects = render({"flower": values or {}, **more})
    pod = pod_of(objects, "Deployment", "flower")
    return pod, pod.container("flower")


def test_its_login_is_in_the_secret():
    login = env_of(flower()[1])["VIRNUCPRO_FLOWER_LOGIN"]["secretKeyRef"]
    assert login == {"name": "virnucpro-fleet-secrets", "key": "flower-login"}


def test_it_has_neither_the_store_nor_its_credentials_nor_the_key_of_messages():
    store = {"url": "s3://bucket/fleet", "s3": {"existingSecret": "keys", "caSecret": "authority"}}
    pod, container = flower(store=store, serviceAccount={"annotations": {"role": "r"}})
    names = {name for name in env_of(container) if name.startswith(("AWS_", "VIRNUCPRO_"))}
    assert names == {
        *("VIRNUCPRO_BROKER_URL", "VIRNUCPRO_FLOWER_LOGIN"),
        *("VIRNUCPRO_LOG_FORMAT", "VIRNUCPRO_LOG_LEVEL"),
    }
    assert [volume["name"] for volume in pod.spec["volumes"]] == ["tmp"]
    assert "serviceAccountName" not in pod.spec


def test_there_is_never_more_than_one():
    deployment = find(render(), "Deployment", "flower")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("prefix", ["", "fleet", "/fleet/"])
def test_its_probes_ask_a_page_that_answers_without_a_login(prefix, tmp_path):
    _, container = flower({"urlPrefix": prefix})
    options = container["args"][3:]
    given = options[options.index("--url-prefix") + 1] if options else ""
    redis = {"VIRNUCPRO_BROKER_URL": "redis://127.0.0.1:1/0"}  # none: it answers all the same
    with running_flower(redis, tmp_path, prefix=f"/{given}" if given else "") as running:
        root = running.url.removesuffix(f"/{given}")
        for probe in ("livenessProbe", "readinessProbe"):
            with urlopen(root + container[probe]["httpGet"]["path"], timeout=10) as answer:
                assert answer.status == 200
            assert container[probe]["timeoutSeconds"] >= 5


@pytest.mark.parametrize(("prefix", "path"), [("", "/"), ("/fleet/", "/fleet")])
def test_an_ingress_leads_to_its_pages(prefix, path):
    ingress = {**INGRESS["ingress"], "tlsSecret": "certificate"}
    objects = render({"flower": {"ingress": ingress, "urlPrefix": prefix}})
    spec = find(objects, "Ingress")["spec"]
    assert spec["tls"] == [{"secretName": "certificate", "hosts": ["fleet.example"]}]
    [rule] = spec["rules"]
    [leads] = rule["http"]["paths"]
    assert (rule["host"], leads["path"]) == ("fleet.example", path)
    service = find(objects, "Service", leads["backend"]["service"]["name"])
    ports = [port["name"] for port in service["spec"]["ports"]]
    assert ports == [leads["backend"]["service"]["port"]["name"]]


@pytest.mark.parametrize(("prefix", "path"), [("", "/"), ("/fleet/", "/fleet")])
def test_a_route_of_a_gateway_leads_to_its_pages(prefix, path):
    objects = render({"flower": {**ROUTE, "urlPrefix": prefix}})
    spec = find(objects, "HTTPRoute")["spec"]
    assert (spec["parentRefs"], spec["hostnames"]) == ([{"name": "gateway"}], ["fleet.example"])
    [rule] = spec["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": path}}]
    service = find(objects, "Service", rule["backendRefs"][0]["name"])
    assert service["spec"]["ports"][0]["port"] == rule["backendRefs"][0]["port"]


def test_there_is_none_if_it_is_off():
    objects = render({"flower": {"enabled": False}})
    assert not [item for item in objects if item["metadata"]["name"].endswith("-flower")]
    assert not find_all(objects, "Ingress") + find_all(objects, "HTTPRoute")
