"""Damaged shards: whatever has changed, no process ends, and no number is wrong."""

import random
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import h5py
import numpy as np
import pytest

from common.errors import UserError
from common.job.layout import input_key, manifest_key, shard_key
from common.job.manifest import read_manifest
from common.job.output_form import OutputForm
from common.rungs import Rung
from producer.output.fetch import fetch
from producer.output.job_shards import read_shard
from producer.output.verify import verify
from producer.scheduling.restore import results_of_batch, stored_weights
from tests.conftest import ROOT
from tests.support.stores import folder_store
from tests.unit.producer.output.test_fetch import DIM, Job, contents

FORM = OutputForm(include=("mean", "per_residue"), max_residues=5)

#: Damages that are tried, drawn by the seed from all bits and all lengths of a shard; and how many
#: of them are read in every way there is, not only as ``fetch`` reads one shard.
SEED, DAMAGES, IN_EVERY_WAY = 13, 800, 40

KEY = shard_key("job-0123456789ab", 0, Rung.FP16)


@pytest.fixture
def job(tmp_path) -> Job:
    job = Job(folder_store(tmp_path / "store"), FORM)
    job.compute_all()
    return job


def problem_of(job: Job, output: Path) -> str:
    """Return the error that a fetch ends with and that verify finds too."""
    with pytest.raises(UserError) as caught:
        fetch(job.store, job.manifest, output)
    assert verify(job.store, job.manifest) == [str(caught.value)]
    return str(caught.value)


# --- any bit, any length ------------------------------------------------------------------------


def main() -> None:
    """Damage the first shard of a job in many ways, and read it."""
    folder = Path(sys.argv[1])
    job = Job(folder_store(folder / "store"), FORM)
    job.compute_all()
    path = job.store.root / KEY
    data = path.read_bytes()
    fetch(job.store, job.manifest, folder / "right.h5")
    right = contents(folder / "right.h5")
    draw = random.Random(SEED)
    for number in range(DAMAGES):
        path.write_bytes(damaged(data, draw))
        with pytest.raises(UserError) as caught:
            read_shard(job.store, job.manifest, 0, KEY, {"dim": DIM, "weights": "w"})
        assert str(caught.value).startswith(f"{job.store.url}/{KEY} cannot be read (")
        if number < IN_EVERY_WAY:
            read_in_every_way(job, folder / "out.h5")
    path.write_bytes(data)
    fetch(job.store, job.manifest, folder / "out.h5")
    for name, values in contents(folder / "out.h5").items():
        np.testing.assert_array_equal(values, right[name])


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Return a shard with one bit changed, or a part of it."""
    changed, bit = bytearray(data), draw.randrange(8 * len(data))
    changed[bit // 8] ^= 1 << bit % 8
    return data[: bit // 8] if draw.random() < 0.1 else bytes(changed)


def read_in_every_way(job: Job, output: Path) -> None:
    assert problem_of(job, output).startswith(f"{job.store.url}/{KEY} cannot be read (")
    for result, weights in results_of_batch(job.store, job.manifest, 0):
        assert (result.records, result.precision, weights) == (3, Rung.FP16, "w")
    assert stored_weights(job.store, job.manifest) == "w"


def test_no_bit_and_no_cut_of_a_shard_ends_the_process_or_changes_a_number(tmp_path):
    """HDF5 crashes on some of them, and never returns from others."""
    script = "from tests.unit.producer.output import test_damage as t; t.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])


# --- shapes and types ---------------------------------------------------------------------------


def replace_dataset(job: Job, name: str, dataset: np.ndarray | tuple) -> None:
    """Replace a dataset of the first shard, or declare one of a shape and a type."""
    with h5py.File(job.store.root / KEY, "r+") as file:
        del file[name]
        if isinstance(dataset, tuple):
            file.create_dataset(name, dataset[0], dataset[1])
        else:
            file[name] = dataset
            file[name].attrs["crc32"] = np.uint32(crc32(dataset.tobytes()))


@pytest.mark.parametrize("rows", [0, 1, 2, 4], ids=lambda rows: f"{rows} rows")
@pytest.mark.parametrize("name", ["mean", "lengths", "input_lengths", "precision", "rows"])
def test_a_dataset_with_another_number_of_rows_is_refused(job, tmp_path, name, rows):
    """One row would be repeated for all by NumPy."""
    with h5py.File(job.store.root / KEY) as file:
        values = file[name][:]
    replace_dataset(job, name, np.resize(values, (rows, *values.shape[1:])))
    assert problem_of(job, tmp_path / "o.h5").startswith(f"{job.store.url}/{KEY} cannot be read (")


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        *((name, (10**12,), "int64") for name in ("rows", "lengths", "input_lengths")),
        ("mean", (10**12, 4), "float32"),
        ("mean", (3, 10**12), "float32"),
        ("residues", (10**12, 4), "float16"),
        ("ids", (10**12,), h5py.string_dtype()),
        ("headers", (10**12,), h5py.string_dtype()),
        ("precision", (10**12,), "uint8"),
        ("mean", (3, 4), "float64"),
        ("mean", (3, 2), "float32"),
        ("mean", (), "float32"),
        ("residues", (9, 4), "float32"),
        ("rows", (3,), "float64"),
        ("ids", (3,), "int64"),
        ("precision", (3,), "int64"),
    ],
)
def test_what_a_damaged_shard_declares_is_not_allocated(job, tmp_path, name, shape, dtype):
    replace_dataset(job, name, (shape, dtype))
    problem = problem_of(job, tmp_path / "o.h5")
    assert problem.startswith(f"{job.store.url}/{KEY} cannot be read (")
    assert "llocat" not in problem
    if name == "rows" and shape != (3,):
        assert results_of_batch(job.store, job.manifest, 0) == []


# --- verify -------------------------------------------------------------------------------------


def test_verify_names_every_object_that_is_missing_or_damaged(job):
    name, store = job.manifest.job, job.store
    missing, damaged = (shard_key(name, index, Rung.FP16) for index in (0, 2))
    changed = input_key(name, 1)
    store.delete(missing)
    store.put(damaged, store.get(damaged)[:-1])
    store.put(changed, store.get(changed).replace(b"MKV", b"LKV"))
    first, second, third = verify(store, job.manifest)
    assert first == f"{store.url}/{missing} is missing. To have it computed: job.resume()"
    assert second.startswith(f"{store.url}/{changed} is damaged (it has another checksum than")
    assert third.startswith(f"{store.url}/{damaged} cannot be read (")


def test_verify_looks_at_all_rungs_of_a_batch_and_at_its_input(job):
    name, store = job.manifest.job, job.store
    job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[0])
    keys = [shard_key(name, 0, rung) for rung in (Rung.FP16, Rung.SELECTIVE_FP32)]
    for key in keys:
        store.put(key, store.get(key)[:-1])
    store.delete(input_key(name, 0))
    problems = verify(store, job.manifest)
    assert [key in text for key, text in zip([input_key(name, 0), *keys], problems, strict=True)]


def test_a_job_that_was_copied_without_its_shards_is_told_so(job):
    for key in list(job.store.keys(f"{job.manifest.job}/output/")):
        job.store.delete(key)
    (problem,) = verify(job.store, job.manifest)
    assert problem.startswith(f"{job.store.url}/{job.manifest.job}/output/ has no shards: ")


def test_a_manifest_that_has_changed_since_it_was_read_is_a_problem(job):
    key = manifest_key(job.manifest.job)
    job.store.put(key, job.store.get(key).replace(b'"long": 0', b'"long": 1'))
    (problem,) = verify(job.store, job.manifest)
    assert problem.startswith(f"{job.store.url}/{key} is damaged")


def test_shards_of_other_sequences_than_the_input_are_a_problem(job):
    """A job of an earlier version, whose manifest has no checksums."""
    manifest = job.manifest.model_copy(update={"input_crc32": ""})
    key = input_key(manifest.job, 0)
    job.store.put(key, job.store.get(key).replace(b"id1", b"id2"))
    (problem,) = verify(job.store, manifest)
    assert problem.startswith("The shards of batch 0 of job-0123456789ab are of other sequences")


@pytest.mark.parametrize("more", [-1, 1])
def test_a_manifest_with_another_number_of_residues_is_refused(job, tmp_path, more):
    report = job.manifest.report
    other = report.model_copy(update={"residues": report.residues + more})
    with pytest.raises(UserError, match=r"manifest\.json does not belong to the shards \("):
        fetch(job.store, job.manifest.model_copy(update={"report": other}), tmp_path / "o.h5")


@pytest.mark.parametrize(
    "changes", [{"batch_records": [3, 1, 4]}, {"batch_tokens": [1]}, {"input_crc32": "0" * 8}]
)
def test_a_manifest_whose_numbers_do_not_agree_is_refused(job, changes):
    changed = job.manifest.model_copy(update=changes)
    job.store.put(manifest_key(changed.job), changed.model_dump_json().encode())
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        read_manifest(job.store, changed.job)
