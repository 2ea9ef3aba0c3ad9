"""``submit -o s3://…`` refuses an output that is too large before the work, not after it."""

import uuid
from pathlib import Path

import pytest

from tests.integration.conftest import BUCKET
from tests.support.processes import Fleet, running_fleet
from tests.support.stores import folder_store


def state(fleet: Fleet) -> tuple[list[str], list[str]]:
    """Return the jobs that are known, and all objects of the store."""
    store = folder_store(Path(fleet.store_url.removeprefix("file://")))
    return fleet.ledger.jobs.names(), sorted(store.keys(""))


@pytest.mark.parametrize("again", [False, True], ids=["new", "queued before"])
def test_an_output_that_will_not_fit_is_refused_before_its_job_is_queued(
    s3, tmp_path, sockets, again
):
    fasta, output = tmp_path / "p.fasta", f"s3://{BUCKET}/rooms-{uuid.uuid4().hex}.h5"
    fasta.write_text(">one\nMKV\n>two\nMKV\n")
    words = ("submit", fasta, "--model", "random:esm2_t6_8M_UR50D")
    variables = {**s3.environment(), "VIRNUCPRO_TMP_BYTES": "1000"}
    with running_fleet(sockets, f"file://{tmp_path}/store", **variables) as fleet:
        assert fleet.producer("init").returncode == 0
        if again:
            assert fleet.producer(*words).returncode == 0
        before = state(fleet)
        done = fleet.producer(*words, "--output", output)
        assert done.returncode == 2, done.stderr
        assert "where files may take 1.0 kB (VIRNUCPRO_TMP_BYTES)" in done.stderr
        assert state(fleet) == before
