"""Jobs whose outputs the tests look at."""

import pytest

from tests.support.outputs import hard_job
from tests.support.stores import folder_store


@pytest.fixture
def job_with(tmp_path):
    """Return a function that computes a job with everything that is hard for an output."""
    return lambda *include, **options: hard_job(
        folder_store(tmp_path / "store"), tmp_path / "outputs", *include, **options
    )
