"""Data that lies beside the project, which stands without it."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


def shared_file(folder: str, name: str) -> Path:
    """Return a file of the shared data; skip the test where it is absent."""
    path = DATA / folder / name
    if not path.exists():
        pytest.skip(f"needs {name} of the data beside the project")
    return path
