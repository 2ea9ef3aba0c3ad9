"""checkov finds nothing in what the chart renders, but for what is excused with a reason."""

import json
import re
import subprocess

import pytest
import yaml

from tests.chart.cases import CASES
from tests.support.chart import ROOT, tool

#: All that is off by default, and every example; the other cases have nothing else in their pods.
SCANNED = [case for case in CASES if "-" not in case.name or "keda-own-redis" in case.name]

EXCUSES = yaml.safe_load((ROOT / "tests/chart/checkov-excuses.yaml").read_text())


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What checkov finds in the cases, each in a namespace of its own: check and resource."""
    checkov = tool("checkov")
    objects = []
    for case in SCANNED:
        for item in case.render():
            item["metadata"]["namespace"] = case.name
            objects.append(item)
    file = tmp_path_factory.mktemp("checkov") / "objects.yaml"
    file.write_text(yaml.dump_all(objects, Dumper=yaml.CSafeDumper))
    command = [checkov, "-f", file, "--framework", "kubernetes", "--skip-download", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000, "it has seen the objects"
    assert not report["summary"]["parsing_errors"]
    found = set()
    for finding in report["results"]["failed_checks"]:
        kind, _, name = finding["resource"].split(".", 2)
        found.add((finding["check_id"], finding["check_name"], f"{kind}.{name}"))
    return found


def excuses(check, resource):
    return [
        excuse
        for excuse in EXCUSES
        if excuse["check"] == check and re.fullmatch(excuse["of"], resource)
    ]


def test_every_finding_is_excused(findings):
    left = [finding for finding in findings if not excuses(finding[0], finding[2])]
    assert not left


def test_every_excuse_is_needed_and_has_a_reason(findings):
    used = [id(excuse) for check, _, resource in findings for excuse in excuses(check, resource)]
    assert [excuse["check"] for excuse in EXCUSES if id(excuse) not in used] == []
    assert all(excuse["reason"].strip() for excuse in EXCUSES)
