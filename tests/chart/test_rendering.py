"""Both Helms accept the chart, and render the same objects, of which no two have one name."""

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.chart.cases import CASES, EVERYTHING, Case, without_random
from tests.support.chart import (
    CHART,
    HELMS,
    KUBE_VERSION,
    example,
    find,
    name_of,
    refused,
    render,
    run_helm,
)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("helm", HELMS)
def test_helm_lints_the_chart_without_a_warning(case: Case, helm: str):
    words: list[object] = ["lint", "--strict", "--kube-version", KUBE_VERSION, CHART]
    if case.example:
        words += ["--values", example(case.example)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(case.values, file)
        file.flush()
        done = run_helm(helm, *words, "--values", file.name)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert not [line for line in output.splitlines() if "WARNING" in line or "ERROR" in line]


def test_both_helms_render_the_same_objects(case: Case):
    first, second = (without_random(case.render(helm)) for helm in HELMS)
    assert first == second


def test_no_two_objects_have_one_name(case: Case):
    objects = case.render()
    assert len(objects) > 15
    names = Counter((item["apiVersion"], item["kind"], name_of(item)) for item in objects)
    assert [name for name, count in names.items() if count > 1] == []


def test_an_upgrade_changes_nothing_but_random_passwords(case: Case):
    first, again = (without_random(case.render(upgrade=upgrade)) for upgrade in (False, True))
    assert first == again


@pytest.mark.parametrize("helm", HELMS)
def test_names_stay_short_enough_for_labels(helm):
    objects = render(release="r" * 53, helm=helm)
    assert max(len(name_of(item)) for item in objects) <= 63


@pytest.mark.parametrize("helm", HELMS)
def test_releases_with_long_names_that_begin_alike_share_no_name(helm):
    first, second = (
        {
            (item["kind"], name_of(item))
            for item in render(
                EVERYTHING, release=f"embeddings-of-the-institute-for-virology-{who}", helm=helm
            )
        }
        for who in ("blue", "green")
    )
    assert first & second == set()
    assert len(first) > 40


@pytest.mark.parametrize("helm", HELMS)
def test_pools_with_long_names_that_begin_alike_share_no_name(helm):
    pools = [
        {"name": f"the-650m-on-spot-{zone}", "model": "dnabert_s", "replicas": {"min": 4}}
        for zone in ("1a", "1b")
    ]
    ahead = {"prePull": {"enabled": True}, "poolDefaults": {"nodeSelector": {"gpu": "yes"}}}
    objects = render({"pools": pools, **ahead}, release="r" * 53, helm=helm)
    names = [(item["kind"], name_of(item)) for item in objects]
    assert len(names) == len(set(names))
    assert max(len(name) for _, name in names) <= 63


@pytest.mark.parametrize("helm", HELMS)
def test_the_names_of_a_release_can_be_chosen(helm):
    objects = render({"fullnameOverride": "fleet"}, helm=helm)
    assert find(objects, "Service", "fleet-keeper")
    assert all(name_of(item).startswith("fleet") for item in objects)


@pytest.mark.parametrize("helm", HELMS)
def test_a_cluster_that_is_too_old_is_refused(helm):
    assert ">=1.29.0" in refused(helm=helm, kube_version="1.28.0")


@pytest.mark.parametrize("helm", HELMS)
def test_the_chart_may_be_a_part_of_another(helm: str, tmp_path: Path):
    """Helm then adds values of its own, which the schema must know."""
    shutil.copytree(CHART, tmp_path / "charts" / CHART.name)
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: whole, version: 1.0.0}")
    values = {"global": {"team": "virus"}, CHART.name: {"keeper": {"replicas": 3}}}
    objects = render(values, helm=helm, chart=tmp_path)
    assert find(objects, "Deployment", "keeper")["spec"]["replicas"] == 3
