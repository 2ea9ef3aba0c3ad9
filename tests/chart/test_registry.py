"""The packaged chart has all its files, and comes back from a real registry as it was pushed."""

import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from common.local.processes import start_dependent, stop
from tests.chart.cases import CASES, without_random
from tests.chart.copies import SOURCES
from tests.support.chart import CHART, HELMS, render, run_helm, tool, unavailable
from tests.support.processes import wait_until
from tests.support.redis_servers import free_port


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty registry."""
    program = shutil.which("docker-registry")
    if program is None:
        unavailable("needs docker-registry: apt-get install docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(settings))
    with (folder / "log").open("wb") as log:
        process = start_dependent([program, "serve", str(folder / "config.yml")], output=log)
    try:
        wait_until(lambda: answers(address), seconds=20)
        yield address
    finally:
        stop(process, 10)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(params=HELMS)
def helm(request: pytest.FixtureRequest) -> str:
    tool(request.param)
    return str(request.param)


@pytest.fixture
def package(helm: str, tmp_path: Path) -> Path:
    done = run_helm(helm, "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*.tgz")
    return path


def test_a_package_has_all_files(package: Path):
    with tarfile.open(package) as archive:
        members = {member.name: member for member in archive}
        assert all(member.isfile() for member in members.values())
        for name, source in SOURCES.items():
            packed = archive.extractfile(f"{CHART.name}/files/{name}")
            assert packed is not None
            assert packed.read() == source.read_bytes()
    needed = {"Chart.yaml", "README.md", "values.yaml", "values.schema.json"}
    assert {f"{CHART.name}/{name}" for name in needed} <= set(members)
    assert not [name for name in members if "values-" in name or "/." in name]


def test_a_chart_comes_back_from_a_registry_as_it_was_pushed(helm, package, registry, tmp_path):
    place = f"oci://{registry}/charts/{helm}"
    pushed = run_helm(helm, "push", package, place, "--plain-http")
    assert pushed.returncode == 0, pushed.stderr
    words = ["pull", f"{place}/{CHART.name}", "--plain-http", "--untar"]
    pulled = run_helm(helm, *words, "--untardir", tmp_path / "pulled")
    assert pulled.returncode == 0, pulled.stderr
    chart = tmp_path / "pulled" / CHART.name
    everything = CASES[0].values
    here, there = (render(everything, helm=helm, chart=at) for at in (CHART, chart))
    assert without_random(here) == without_random(there)
