"""The chart's Secret: made once, kept, or another one named in its place."""

import base64
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, HELMS, NAMESPACE, RELEASE, find, find_all, render, run_helm
from tests.support.lookup_api import cluster_with_secret

USERS = ("producer", "keeper", "worker", "flower", "metrics")


def decoded(objects):
    data = find(objects, "Secret", "secrets")["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


@pytest.mark.parametrize("helm", HELMS)
def test_it_has_a_value_of_its_own_for_each_purpose(helm):
    found = decoded(render(helm=helm))
    assert set(found) == {"message-key", "flower-login", *(f"{user}-password" for user in USERS)}
    user, _, password = found.pop("flower-login").partition(":")
    assert user == "admin"
    values = [password, *found.values()]
    assert all(re.fullmatch("[A-Za-z0-9]{48}", value) for value in values)  # fits into a URL
    assert len(set(values)) == len(values)


def test_it_outlives_the_release():
    secret = find(render(), "Secret", "secrets")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("helm", HELMS)
def test_an_upgrade_keeps_the_values_and_adds_those_that_are_missing(helm, tmp_path):
    chart = chart_of_secrets(tmp_path)
    old = {"message-key": "the-old-key", "keeper-password": "the-old-password"}
    data = {name: base64.b64encode(value.encode()).decode() for name, value in old.items()}
    with cluster_with_secret(NAMESPACE, f"{RELEASE}-secrets", data) as address:
        done = run_helm(
            *(helm, "template", RELEASE, chart, "--namespace", NAMESPACE, "--is-upgrade"),
            *("--dry-run=server", "--kube-apiserver", address, "--disable-openapi-validation"),
        )
    assert done.returncode == 0, done.stderr
    found = decoded([yaml.safe_load(done.stdout)])
    assert old.items() <= found.items()
    assert len(found["worker-password"]) == 48


def chart_of_secrets(folder: Path) -> Path:
    """Return a copy of the chart with this template alone: Helm looks up all kinds that it has."""
    chart = shutil.copytree(CHART, folder / CHART.name)
    for template in (chart / "templates").rglob("*.*"):
        if template.suffix in (".yaml", ".txt") and template.name != "secrets.yaml":
            template.unlink()
    return chart


def test_one_of_the_user_s_takes_its_place_everywhere():
    objects = render({"secrets": {"existingSecret": "mine"}})
    assert not find_all(objects, "Secret")
    assert f"{RELEASE}-secrets" not in str(objects)


def test_passwords_of_an_external_redis_are_not_made_up():
    external = {"host": "redis.example", "authentication": "none"}
    found = decoded(render({"redis": {"enabled": False}, "externalRedis": external}))
    assert set(found) == {"message-key", "flower-login"}
