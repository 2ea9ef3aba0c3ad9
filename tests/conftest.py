"""Settings for all tests."""

import os
from pathlib import Path

import pytest

# Tests run in as many processes as there are cores: more threads in each only get in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is imported

ROOT = Path(__file__).parent.parent

pytest_plugins = ["tests.support.fixtures"]


@pytest.fixture(scope="session")
def examples() -> Path:
    return ROOT / "examples" / "proteins.fasta"


@pytest.fixture(scope="session")
def disprot() -> Path:
    """1,162 real proteins of 24 to 34,350 residues, which are not part of the project."""
    path = ROOT.parent / "shared" / "data" / "disprot_proteins.fasta"
    if not path.is_file():
        pytest.skip("needs the DisProt FASTA, which lies beside the project where it is developed")
    return path


@pytest.fixture(scope="session")
def some_disprot(disprot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 of these proteins: enough for seconds of work in small batches."""
    path = tmp_path_factory.mktemp("part") / disprot.name
    records = disprot.read_text().split("\n>")[:400]
    path.write_text("\n>".join(records) + "\n")
    return path
