"""Every command in the README and in docs/ works as written."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from cyclopts import App

from producer.cli.app import app as producer_app
from producer.cli.values import one_each
from tests.conftest import ROOT
from tests.support.processes import clean_environment, run, run_producer
from workers.cli.app import app as worker_app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Pages that name files of the project.
MAPS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"

#: Options of other programs, which pages name.
OTHERS = {
    *("--repr_layers", "--build-arg", "--secret", "--no-healthcheck", "--scale"),
    *("--gpus-per-node", "--signal", "--requeue", "--weights", "--container", "--force-conflicts"),
    *("--timeout", "--nogpu", "--auto-truncate", "--pooling", "--resume"),
}

DEMO = "producer submit examples/proteins.fasta --local --model random:esm2_t6_8M_UR50D"


def blocks(language: str) -> list[tuple[str, str]]:
    """Return each page's fenced blocks of a language, with the page's name."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, block) for page in PAGES for block in fence.findall(page.read_text())]


def commands(program: str) -> list[str]:
    """Return every call of a program in a shell block, without comments."""
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
        app.parse_args(one_each(shlex.split(command)[1:]), exit_on_error=False, print_error=False)


def test_make_demo_is_the_command_that_the_readme_shows():
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert f"{DEMO} -o embeddings.h5" in recipe
    assert f"{DEMO} -o embeddings.h5" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory) -> Path:
    """A folder with the demo's input and output."""
    folder = tmp_path_factory.mktemp("demo")
    demo = shlex.split(f"{DEMO} -o embeddings.h5")[1:]
    demo[1] = str(ROOT / demo[1])
    done = run_producer(*demo, cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copy(ROOT / demo[1], folder / "proteins.fasta")
    return folder


def run_python(page: str, **run_options: Any) -> str:
    """Run a page's blocks of Python one after another, with random weights; return the output."""
    script = "\n".join(block for name, block in blocks("python") if name == page)
    script = re.sub(r'"(esm2_\w+)"', r'"random:\1"', script)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, **run_options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_of_python_is_run_by_a_test_here():
    # By test_inputs_page, test_outputs_page, test_scores_page, test_finetuned_page,
    # test_virnucpro_page, test_quick_start_page and test_coming_from_pages.
    run_elsewhere = {
        *("inputs.md", "outputs.md", "scores.md", "finetuned.md", "virnucpro.md"),
        *(
            "quick-start.md",
            "from-esm-extract.md",
            "from-bio-embeddings.md",
            "from-transformers.md",
        ),
    }
    assert {page for page, _ in blocks("python")} - run_elsewhere == {
        *("README.md", "formats.md", "python.md")
    }


def test_the_reading_of_the_demo_s_file_runs(demo_folder):
    assert "25 (25, 320) True" in run_python("formats.md", cwd=demo_folder)


def test_the_five_lines_of_python_run(demo_folder):
    assert "(1, 320)" in run_python("README.md", cwd=demo_folder)


def test_the_page_on_python_runs(demo_folder, fleet, tmp_path):
    with fleet.workers("random:esm2_t6_8M_UR50D", tmp_path):
        shown = run_python("python.md", cwd=demo_folder, env=fleet.environment)
    assert "(2, 320) float32\n25 random:esm2_t6_8M_UR50D True\n(25, 320)" in shown
    assert "2 Sequence 2 ('P2') has '1' at position 3" in shown
    assert shown.endswith("If it is a job's, fetch it again.\n")


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text())


def test_the_notebook_is_small_and_has_its_outputs(notebook):
    assert NOTEBOOK.stat().st_size < 300_000
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for cell in cells for out in cell["outputs"] for kind in out.get("data", ())]
    assert "image/png" in kinds
    assert not any(out.get("name") == "stderr" for cell in cells for out in cell["outputs"])


def test_the_notebook_runs_and_shows_progress_in_its_cell(demo_folder):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(demo_folder)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=place).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    shown = [out.get("data", {}) for out in outputs]
    assert any("image/png" in data for data in shown)
    assert any(data.get("text/html", "").startswith("<progress") for data in shown)
    assert not any(out.get("name") == "stderr" for out in outputs)


def test_the_fleet_of_the_readme_runs(tmp_path, fleet, tiny, examples):
    """Run the block as written, except for its broker, store and model."""
    pages = [block for page, block in blocks("sh") if page == "README.md"]
    (block,) = [block for block in pages if "worker start" in block]
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
    for module, app in (("producer.cli", producer_app), ("workers.cli", worker_app)):
        for command in [name for name in app if not name.startswith("-")]:
            known += run(module, command, "--help", environment=environment).stdout
    for page in PAGES:
        for option in re.findall(r"`(--[a-z-]+)[ `]", page.read_text()):
            assert option in known or option in OTHERS, f"{page.name}: {option}"
