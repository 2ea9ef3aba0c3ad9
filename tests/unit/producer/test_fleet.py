"""Fleet and Job: each act on them, with a ledger and a store and no worker."""

import pytest

from common.errors import InputError, JobEndedError, UnknownJobError, WaitTimeoutError
from common.settings import Settings
from producer.fleet.fleet import Fleet

MODEL = "esm2_t6_8M_UR50D"
RECORDS = {"P1": "MKTAYIAK", "P2": "GAVL"}


@pytest.fixture
def fleet(redis, redis_url, tmp_path) -> Fleet:
    return Fleet(Settings.read(broker=redis_url, store=str(tmp_path / "store")))


@pytest.fixture
def job(fleet):
    with pytest.warns(UserWarning, match=f"no worker serves {MODEL}.fp16 yet"):
        return fleet.submit(RECORDS, model=MODEL)


def test_records_are_the_same_job_as_pairs_and_as_a_mapping(fleet, job):
    with pytest.warns(UserWarning, match="no worker serves"):
        again = fleet.submit(RECORDS.items(), model=MODEL)
    assert again.name == job.name
    assert job.name.startswith("records-")
    assert job.manifest.input == "records"
    assert job.manifest.report.records == 2


def test_a_path_may_be_a_path_object(fleet, tmp_path):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">a\nMKTAYIAK\n")
    with pytest.warns(UserWarning, match="no worker serves"):
        assert fleet.submit(fasta, model=MODEL).name.startswith("p-")


def test_a_bad_record_is_an_error_with_its_place(fleet):
    with pytest.raises(InputError) as caught:
        fleet.submit({"P1": "MKT", "P2": "MK1"}, model=MODEL)
    error = caught.value
    assert (error.path, error.line, error.record) == ("records", 3, 2)


@pytest.mark.parametrize("bad", [{"a": "MK\nT"}, {"a\n>b": "MKT"}])
def test_a_record_that_fasta_cannot_hold_is_refused(fleet, bad):
    with pytest.raises(InputError, match="line break"):
        fleet.submit(bad, model=MODEL)


def test_a_job_is_listed_waited_for_cancelled_and_resumed(fleet, job):
    assert [known.name for known in fleet.jobs()] == [job.name]
    assert job.status().batches == 1
    with pytest.raises(WaitTimeoutError, match="did not finish within 0 seconds"):
        job.wait(timeout=0)
    job.cancel()
    with pytest.raises(JobEndedError, match="was cancelled"):
        job.wait()
    with pytest.raises(JobEndedError, match="is cancelled"):
        job.retry()
    assert job.resume() == 1
    assert job.status().state == "open"
    assert job.retry() == 1


def test_a_deleted_job_is_known_to_nobody(fleet, job):
    job.delete()
    assert fleet.jobs() == []
    assert list(fleet.store.keys("")) == []
    with pytest.raises(UnknownJobError, match="Redis knows no job"):
        job.status()
    with pytest.raises(UnknownJobError, match="has no job"):
        assert fleet.job(job.name).manifest
