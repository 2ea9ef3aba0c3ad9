"""``virnucpro_fleet`` with a real Redis and a real worker: from records to vectors."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import virnucpro_fleet as vf
from tests.support.results import read_fasta

MODEL = "random:esm2_t6_8M_UR50D"
RECORDS = {"P1": "MKTAYIAKQR", "P2": "MVLSPADKTN", "sp|P3|SHORT": "GA"}
FORM = {"include": ("mean", "per_residue")}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*has random weights:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*longer than 1,022 residues:UserWarning"),
]


@pytest.fixture(scope="module")
def fleet() -> Iterator[vf.Fleet]:
    with vf.Fleet.local(model=MODEL.replace("esm2", "ESM2"), gpus="none") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def job(fleet) -> vf.Job:
    """A finished job of three records in as many batches."""
    with pytest.warns(UserWarning, match="has random weights"):
        job = fleet.submit(RECORDS, model=MODEL, batch_tokens=12, **FORM)
    assert job.wait(timeout=120).finished
    return job


def test_another_spelling_of_a_model_is_served_by_the_same_worker(fleet, job):
    with pytest.warns(UserWarning, match="has random weights"):
        again = fleet.submit(RECORDS, model=MODEL.upper(), batch_tokens=12, **FORM)
    assert again.name == job.name
    fleet.check(job.name, "random:facebook/esm2_t6_8M_UR50D")
    assert [model for model, _ in fleet.machine.workers] == [MODEL]


def test_a_finished_job_says_what_was_done(fleet, job):
    progress = job.status()
    assert progress.status == "finished"
    assert (progress.batches_done, progress.rows_done) == (3, 3)
    assert job.name in [known.name for known in fleet.jobs()]
    assert [worker.model for worker in fleet.workers()] == [MODEL]
    assert "on this machine" in repr(fleet)


def test_its_embeddings_are_those_of_this_process(job):
    found = job.embeddings()
    with vf.Embedder(MODEL, device="cpu") as embedder:
        expected = embedder.embed(RECORDS, include=("mean", "per_residue"))
    assert found.ids == expected.ids == list(RECORDS)
    assert found.precision == expected.precision
    assert found.model == expected.model == MODEL
    assert expected.attributes.items() <= found.attributes.items()
    np.testing.assert_allclose(found.mean, expected.mean, atol=2e-5)
    np.testing.assert_allclose(found["P3"], expected["P3"], atol=2e-5)
    np.testing.assert_allclose(found.residues("P2"), expected.residues("P2"), atol=2e-3)  # float16


def test_a_fetched_file_has_the_same_and_nothing_is_damaged(job, tmp_path):
    assert job.verify() == []
    fetched = job.fetch(tmp_path / "e.h5")
    assert (fetched.rows, fetched.quarantined) == (3, [])
    with vf.load(tmp_path / "e.h5") as found:
        assert np.array_equal(found.mean, job.embeddings().mean)
        assert np.array_equal(found.residues("P3"), job.embeddings().residues("P3"))


def test_a_path_is_streamed_batch_by_batch_while_it_runs(fleet, examples):
    job = fleet.submit(examples, model=MODEL, batch_tokens=2000)
    assert job.manifest.batches > 2
    parts = list(job.stream(poll_seconds=0.1))
    assert job.status().finished
    assert len(parts) == job.manifest.batches
    vectors = {
        id_: vector for ids, values in parts for id_, vector in zip(ids, values, strict=True)
    }
    embeddings = job.embeddings()
    assert sorted(vectors) == sorted(header.split()[0] for header, _ in read_fasta(examples))
    assert all(np.array_equal(vectors[id_], embeddings[id_]) for id_ in embeddings)
    assert len(list(job.stream())) == len(parts)  # of a finished job, all at once


def test_progress_in_a_pipe_is_lines(fleet, job, capsys):
    job.wait(progress=True)
    text = capsys.readouterr().err
    assert text.startswith(f"{job.name}: 100 % · 3/3 batches · 3/3 sequences")
    assert text.count("\n") == 1


def test_a_stream_of_a_cancelled_job_is_an_error(fleet, examples):
    job = fleet.submit(examples, model=MODEL, batch_tokens=500, layers=(3,))
    job.cancel()
    with pytest.raises(vf.JobEndedError, match="was cancelled"):
        list(job.stream())


def test_errors_name_their_place(fleet, job, tmp_path):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">P1\nMKT\n>P2\nMK1\n")
    with pytest.raises(vf.InputError) as caught:
        fleet.submit(fasta, model=MODEL)
    assert (caught.value.path, caught.value.line, caught.value.record) == (str(fasta), 4, 2)
    with pytest.raises(KeyError, match="did you mean 'P1'"):
        job.embeddings()["P11"]
    with pytest.raises(vf.UnknownJobError):
        fleet.job("none").status()


def test_a_fleet_without_a_block_is_closed_by_hand():
    fleet = vf.Fleet.local(gpus="none")
    assert fleet.jobs() == []
    machine = fleet.machine
    fleet.close()
    assert machine.redis.poll() is not None
    for act in (fleet.jobs, fleet.job("none").status, fleet.job("none").wait):
        with pytest.raises(vf.UserError, match="is closed: start another one"):
            act()


def test_a_fleet_that_is_left_open_ends_with_python():
    code = (
        "import virnucpro_fleet as vf; fleet = vf.Fleet.local(gpus='none', model='" + MODEL + "');"
        "print(fleet.machine.redis.pid, *(w.pid for w in fleet.machine.workers.values()),"
        " fleet.store.url)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    *pids, store = done.stdout.split()
    assert len(pids) == 2
    assert not any(psutil.pid_exists(int(pid)) for pid in pids)
    assert not Path(store.removeprefix("file://")).parent.exists()
