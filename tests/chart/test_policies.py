"""checkov finds nothing but what checkov.yaml excuses, each with a reason."""

import fnmatch
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.chart.cases import CASES, Case
from tests.support.chart import NAMESPACE, Object, example_names, tool

EXCUSES = Path(__file__).parent / "checkov.yaml"


@dataclass(frozen=True)
class Excuse:
    check: str
    objects: str
    reason: str

    def covers(self, finding: "Finding") -> bool:
        return self.check == finding.check and fnmatch.fnmatch(finding.item, self.objects)


@dataclass(frozen=True)
class Finding:
    check: str
    name: str
    item: str  # KIND/NAME


def excuses() -> list[Excuse]:
    return [Excuse(**row) for row in yaml.safe_load(EXCUSES.read_text())]


def scanned(folder: Path) -> tuple[set[Finding], int]:
    """Return what checkov finds in a folder of manifests, and how many checks were passed."""
    command = [tool("checkov").parent / "python", "-m", "checkov.main", "--directory", folder]
    command += ["--framework", "kubernetes", "--compact", "--skip-download", "--output", "json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    found = set()
    for row in report["results"]["failed_checks"]:
        kind, _, name = row["resource"].split(".", 2)
        found.add(Finding(row["check_id"], row["check_name"], f"{kind}/{name}"))
    return found, report["summary"]["passed"]


def write(path: Path, objects: list[Object]) -> None:
    """Write manifests with the namespace that Helm installs them in."""
    for item in objects:
        item["metadata"]["namespace"] = NAMESPACE
    path.write_text(yaml.safe_dump_all(objects))


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> set[Finding]:
    tool("checkov")
    folder = tmp_path_factory.mktemp("manifests")
    plain = [Case(name, {}, name) for name in example_names()]
    for case in [*plain, *(case for case in CASES if case.example is None)]:
        write(folder / f"{case}.yaml", case.render())
    found, passed = scanned(folder)
    assert passed > 3000
    return found


def test_nothing_is_found_that_has_no_excuse(findings):
    rest = [row for row in findings if not any(excuse.covers(row) for excuse in excuses())]
    assert rest == []


def test_every_excuse_is_needed_and_has_a_reason(findings):
    for excuse in excuses():
        assert any(excuse.covers(row) for row in findings), excuse
        assert excuse.reason.endswith("."), excuse


def test_a_container_that_may_do_more_is_found(tmp_path):
    tool("checkov")
    [case, *_] = CASES
    objects = case.render()
    deployment = next(item for item in objects if item["kind"] == "Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container["securityContext"]["privileged"] = True
    write(tmp_path / "manifest.yaml", [deployment])
    found, _ = scanned(tmp_path)
    assert "CKV_K8S_16" in {row.check for row in found}
