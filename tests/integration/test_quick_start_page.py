"""The commands and blocks of docs/quick-start.md run as written, in their order."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.test_docs import with_this_python
from tests.support.pages import PACKAGES, blocks, run_blocks
from tests.support.processes import clean_environment

INSTALLATION, *MACHINE, ADDRESSES, WORKER, PRODUCER = blocks("quick-start.md", "sh", "python")

MODEL = "esm2_t6_8M_UR50D"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("quick-start")


def test_the_extras_that_are_installed_exist_and_the_pins_too():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "quick-start.md").read_text()
    assert set(re.findall(r"'\.\[(\w+)\]'", page)) <= set(project["optional-dependencies"])
    [pins] = re.findall(r"--constraint (\S+)", INSTALLATION[1])
    assert (ROOT / pins).is_file()


def test_one_machine(folder):
    replace = {f"--model {MODEL}": f"--model random:{MODEL} --gpus none"}
    printed = run_blocks(MACHINE, folder, clean_environment(), replace)
    assert "Wrote 2 embeddings to embeddings.h5." in printed[0]
    assert printed[1] == "['P1', 'P2'] (2, 320)\n(320,) [33 41] ['fp32', 'fp32']\n"
    assert re.sub(r"np\.(True)_", r"\1", printed[2]) == "{'P1': True, 'P2': True}\n"
    assert "Wrote 4 embeddings to genomes.h5." in printed[3]
    assert printed[4] == "4 ['genomes/a.faa', 'genomes/b.faa.gz']\n(33, 320)\n"


def test_a_fleet(fleet, tiny, tmp_path):
    assert re.fullmatch(r"export VIRNUCPRO_BROKER_URL=\S+ VIRNUCPRO_STORE=\S+\n", ADDRESSES[1])
    assert WORKER[1] == f"worker start --model {MODEL}\n"
    (tmp_path / "proteins.fasta").write_text(">P1\nMKTAYIAKQR\n")
    script = PRODUCER[1].replace(MODEL, str(tiny))
    with fleet.workers(tiny, tmp_path):
        done = subprocess.run(
            ["bash", "-euc", f"trap 'kill %1; wait' EXIT\n{script}"],
            cwd=tmp_path,
            env={**fleet.environment, "PATH": with_this_python(), "PYTHONPATH": PACKAGES},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Wrote 1 embedding" in done.stderr
    assert (tmp_path / "fleet.h5").is_file()
