"""Every command in the README and in docs/ works as it stands there."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from producer.cli import app as producer_app
from tests.conftest import ROOT
from tests.support.processes import clean_environment, run, run_producer
from workers.cli import app as worker_app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Pages that name files of the project.
MAPS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]

DEMO = "producer submit examples/proteins.fasta --local --model random:esm2_t6_8M_UR50D"


def blocks(language: str) -> list[tuple[str, str]]:
    """Each page's fenced blocks of a language, with the page's name."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, block) for page in PAGES for block in fence.findall(page.read_text())]


def commands(program: str) -> list[str]:
    """Every use of a program in a shell block, without comments and what surrounds it."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    found = [re.search(rf"(?:^|\$\(){program} [^#&)]*", line) for line in lines]
    return [match.group().removeprefix("$(").strip() for match in found if match]


@pytest.mark.parametrize(
    ("program", "app"), [("producer", producer_app), ("worker", worker_app)], ids=lambda v: str(v)
)
def test_every_command_is_one_that_the_program_knows(program: str, app: App):
    found = commands(program)
    assert found
    for command in found:
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_make_demo_is_the_command_that_the_readme_shows():
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert f"{DEMO} -o embeddings.h5" in recipe
    assert f"{DEMO} -o embeddings.h5" in (ROOT / "README.md").read_text()


def test_the_demo_and_the_reading_of_its_file_run(tmp_path):
    demo = shlex.split(f"{DEMO} -o embeddings.h5")[1:]
    demo[1] = str(ROOT / demo[1])
    done = run_producer(*demo, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (_, snippet), *others = blocks("python")
    assert not others, "run them here too"
    shown = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True
    )
    assert "25 (25, 320) True" in shown.stdout, shown.stderr


def test_the_fleet_of_the_readme_runs(tmp_path, fleet, tiny, examples):
    """The block as it stands, but for its broker, store and model."""
    (block,) = [block for _, block in blocks("sh") if "worker start" in block]
    export, rest = block.split("\n", 1)
    assert export.startswith("export VIRNUCPRO_BROKER_URL=")
    script = rest.replace("esm2_t33_650M_UR50D", str(tiny)).replace("$JOB\n", '"$JOB"\n')
    assert script.count(str(tiny)) == 2
    (tmp_path / "proteins.fasta.gz").write_bytes(gzip.compress(examples.read_bytes()))
    script = f"trap 'kill %1 %2; wait' EXIT\n{script}"
    environment = {**fleet.environment, "PATH": with_this_python()}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "embeddings.h5").is_file()


def with_this_python() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_paths_that_a_page_names_exist(page):
    named = re.findall(r"`(?:[^` ]+ )?([\w.]+(?:/[\w.]*)+|\w+\.toml|Makefile)`", page.read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_row_of_the_map_names_a_path():
    _, table = (ROOT / "docs" / "architecture.md").read_text().split("## To change X, look at Y\n")
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    assert all(re.search(r"\| .+ \| `[^`]+`", row) for row in rows)


def test_options_that_the_pages_name_exist():
    environment = clean_environment()
    known = ""
    for command in ("submit", "keeper", "retry"):
        known += run_producer(command, "--help", environment=environment).stdout
    for command in ("start", "validate"):
        known += run("workers.cli", command, "--help", environment=environment).stdout
    for page in PAGES:
        for option in re.findall(r"`(--[a-z-]+)[ `]", page.read_text()):
            assert option in known or option in {"--repr_layers"}, f"{page.name}: {option}"
