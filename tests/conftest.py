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
