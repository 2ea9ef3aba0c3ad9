"""What a fleet's store has from earlier jobs is not computed again: ``submit --reuse``."""

import random
import warnings
from pathlib import Path

import numpy as np
import pytest

import virnucpro_fleet as vf
from common.embeddings.file import EmbeddingFile
from common.ledger.keys import job_key
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job

#: The largest difference between a number computed in two different batches.
BOUND = 2e-5

MODEL = "random:esm2_t6_8M_UR50D"

#: Sequences of two releases of a database: the second has most of the first, in another order, new
#: ones, and some of both twice.
LETTERS = random.Random(7)
OLD = [
    "".join(LETTERS.choices("ACDEFGHIKLMNPQRSTVWY", k=LETTERS.randint(5, 60))) for _ in range(60)
]
NEW = ["MKTAYIAKQR", "GAVLIMKW"]
FIRST = {f"old_{number}": letters for number, letters in enumerate(OLD)}
SECOND = {
    **{f"kept_{number}": OLD[number] for number in (40, *range(3, 55))},
    "new_0": NEW[0],
    "twice_old": OLD[3],
    "new_1": NEW[1],
    "twice_new": NEW[0],
}


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with vf.Fleet.local(model=MODEL, gpus="none") as fleet:
            yield fleet


def done(fleet: Fleet, sequences, **options) -> Job:
    """Submit sequences, wait for the job, and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        job = fleet.submit(sequences, model=MODEL, batch_tokens=400, **options)
    job.wait(timeout=120)
    return job


def contents(job: Job, path: Path) -> dict[str, np.ndarray]:
    job.fetch(path, overwrite=True)
    with EmbeddingFile(path) as file:
        return {name: dataset[:] for name, dataset in file.datasets.items()}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind == "f":  # in another batch, the last bits may differ
            np.testing.assert_allclose(found[name], values, atol=BOUND, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize(
    "include", ["mean", ("mean", "per_residue", "entropy", "contacts")], ids=str
)
def test_the_second_release_computes_only_what_is_new(fleet, tmp_path, include):
    first = done(fleet, FIRST, include=include)
    again = done(fleet, SECOND, include=include, reuse=True, new=True)
    plain = done(fleet, SECOND, include=include, new=True)
    assert again.manifest.report.reused == len(SECOND) - again.manifest.computed - 1
    assert again.manifest.computed <= len(NEW) + again.manifest.batches
    expected = contents(plain, tmp_path / "plain.h5")
    assert_equal(contents(again, tmp_path / "again.h5"), expected)
    assert again.verify() == []

    first.delete()
    assert_equal(contents(again, tmp_path / "again.h5"), expected)
    table = again.embeddings()
    for id_ in ("kept_40", "twice_old", "twice_new", "new_1"):
        np.testing.assert_allclose(table[id_], plain.embeddings()[id_], atol=BOUND)
        if "per_residue" in include:
            residues = plain.embeddings().residues(id_)
            np.testing.assert_allclose(table.residues(id_), residues, atol=BOUND)
    for job in (again, plain):
        job.delete()


def test_rows_that_were_taken_over_are_used_again(fleet, tmp_path):
    first = done(fleet, FIRST)
    second = done(fleet, SECOND, reuse=True, new=True)
    first.delete()
    third = done(fleet, SECOND, reuse=True, new=True)
    assert third.manifest.computed == third.manifest.batches == 1
    assert third.manifest.report.reused == len(SECOND) - 1
    assert_equal(contents(third, tmp_path / "3.h5"), contents(second, tmp_path / "2.h5"))


def test_ids_verify_and_the_file_see_rows_that_were_taken_over(fleet, tmp_path):
    first = done(fleet, FIRST)
    job = done(fleet, SECOND, reuse=True, new=True)
    job.fetch(tmp_path / "some.h5", ids=["kept_9", "twice_old", "new_1"])
    with vf.load(tmp_path / "some.h5") as found:
        assert sorted(found.ids) == ["kept_9", "new_1", "twice_old"]
        np.testing.assert_array_equal(found["kept_9"], first.embeddings()["old_9"])
        assert found.attributes["records_reused"] == job.manifest.report.reused
    ids, vectors = zip(*job.stream(), strict=True)
    assert sum(map(len, ids)) == sum(map(len, vectors)) == len(SECOND)

    [key, *_] = fleet.store.keys(f"{job.name}/reused/")
    path = fleet.store.root / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    [problem] = job.verify()
    assert f"{key} is damaged" in problem
    assert "submit the input again" in problem
    with pytest.raises(vf.UserError, match="is damaged"):
        job.fetch(tmp_path / "all.h5")
    job.delete()
    assert list(fleet.store.keys(f"{job.name}/")) == []


def test_workers_with_other_weights_cannot_claim_what_rows_are_taken_over_for(fleet):
    done(fleet, FIRST)
    job = done(fleet, SECOND, reuse=True, new=True)
    weights = job.manifest.reused_weights
    assert weights == job.embeddings().attributes["weights"]
    assert fleet.ledger.redis.hget(job_key(job.name), "weights") == weights
    fleet.ledger.jobs.forget(job.name)
    fleet.ledger.jobs.create(job.manifest, "q")
    assert fleet.ledger.redis.hget(job_key(job.name), "weights") == weights
    job.delete()


def test_nothing_to_take_over_is_said(fleet):
    for expected in ("no earlier job in the store has any of these", "reuse comes too late"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            job = fleet.submit({"a": "MKV"}, model=MODEL, include="bos", reuse=True)
        assert any(expected in str(warning.message) for warning in caught)
    job.wait(timeout=60)
