"""Fetch: shards of a real folder to one file, in input order, every row with its precision."""

from collections.abc import Sequence
from itertools import islice

import h5py
import numpy as np
import pytest

from common.batchfile import Record, encode_batch
from common.errors import UserError
from common.layout import input_key, shard_key
from common.manifest import Manifest, OutputForm
from common.rungs import PRECISION_CODES, Rung
from common.shard import Embeddings
from common.store import FileStore
from producer.fetch import fetch
from tests.support.jobs import manifest_of
from tests.support.shards import embeddings_of, write_shard

DIM = 4
MAX_RESIDUES = 5
MEAN = OutputForm(max_residues=MAX_RESIDUES)
FORMS = {
    "mean": MEAN,
    "bos": OutputForm(include=("bos",), max_residues=MAX_RESIDUES),
    "per residue": OutputForm(include=("mean", "per_residue"), max_residues=MAX_RESIDUES),
    "layers": OutputForm(
        include=("mean", "per_residue"),
        layers=(-1, 2),
        residue_dtype="float32",
        max_residues=MAX_RESIDUES,
    ),
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

#: Rows 2 and 5 were skipped by the reader; row 4 is longer than the limit.
RECORDS = [
    Record(row, f"id{row} é", "MKVLGAST"[:length])
    for row, length in zip([0, 1, 3, 4, 6, 7, 8], [3, 1, 5, 8, 2, 4, 5], strict=True)
]
BATCH_RECORDS = [3, 1, 3]


class Job:
    """A staged job, whose shards a test writes as workers would."""

    def __init__(self, store: FileStore, form: OutputForm) -> None:
        self.store = store
        self.form = form
        rest = iter(RECORDS)
        self.batches = [list(islice(rest, size)) for size in BATCH_RECORDS]
        residues = sum(min(len(record.residues), MAX_RESIDUES) for record in RECORDS)
        self.manifest: Manifest = manifest_of(BATCH_RECORDS, form=form, residues=residues)
        for index, records in enumerate(self.batches):
            store.put(input_key(self.manifest.job, index), encode_batch(records))

    def compute(
        self,
        index: int,
        *,
        rung: Rung = Rung.FP16,
        rows: Sequence[int] | None = None,
        weights: str = "w",
    ) -> Embeddings:
        """Write a batch's shard at a rung, with all of its rows or only some."""
        records = [r for r in self.batches[index] if rows is None or r.row in rows]
        part = embeddings_of(records, self.form, DIM, precision=rung)
        attributes = {"weights": weights, "dim": DIM, "model": "random:x", "warning": "nothing"}
        with self.store.create(shard_key(self.manifest.job, index, rung)) as path:
            write_shard(path, self.form, DIM, part, **attributes)
        return part

    def compute_all(self) -> list[Embeddings]:
        return [self.compute(index) for index in range(len(self.batches))]


@pytest.fixture
def job_of(tmp_path):
    return lambda form: Job(FileStore(tmp_path / "store"), form)


@pytest.fixture
def job(job_of) -> Job:
    return job_of(MEAN)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "some" / "folder" / "out.h5"


def contents(path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def residues_of(found: dict[str, np.ndarray], position: int) -> np.ndarray:
    """A record's residues, as a user finds them."""
    start, end = found["offsets"][position : position + 2]
    return found["residues"][start:end]


# --- one rung -----------------------------------------------------------------------------------


@every_form
def test_shards_follow_each_other_in_input_order(job_of, output, form):
    job = job_of(form)
    parts = list(reversed([job.compute(index) for index in (2, 1, 0)]))
    fetched = fetch(job.store, job.manifest, output)
    found = contents(output)
    assert found["rows"].tolist() == [record.row for record in RECORDS]
    assert [text.decode() for text in found["headers"]] == [record.header for record in RECORDS]
    assert [text.decode() for text in found["ids"]] == [record.id for record in RECORDS]
    assert found["input_lengths"].tolist() == [len(record.residues) for record in RECORDS]
    assert found["lengths"].tolist() == [min(len(r.residues), MAX_RESIDUES) for r in RECORDS]
    for name in form.pooled_names:
        expected = np.concatenate([part.pooled[name] for part in parts])
        assert np.array_equal(found[name], expected)
    if form.per_residue:
        assert found["residues"].dtype == form.residue_dtype
        assert np.array_equal(found["residues"], np.concatenate([p.residues for p in parts]))
    assert (fetched.path, fetched.rows, fetched.rows_without_numbers) == (output, len(RECORDS), 0)


def test_a_file_says_what_its_numbers_come_from(job, output):
    job.compute_all()
    fetched = fetch(job.store, job.manifest, output)
    with h5py.File(output) as file:
        attributes = dict(file.attrs)
    assert (attributes["weights"], attributes["model"]) == ("w", "random:x")
    assert (attributes["input"], attributes["rows_without_numbers"]) == ("in.fa", 0)
    assert fetched.warning == attributes["warning"] == "nothing"


def test_progress_is_told_batch_by_batch(job, output):
    job.compute_all()
    told: list[int] = []
    fetch(job.store, job.manifest, output, told.append)
    assert told == BATCH_RECORDS


def test_an_earlier_output_is_replaced(job, output):
    output.parent.mkdir(parents=True)
    output.write_text("something else")
    job.compute_all()
    fetch(job.store, job.manifest, output)
    assert len(contents(output)["rows"]) == len(RECORDS)
    assert [path.name for path in output.parent.iterdir()] == ["out.h5"]


# --- several rungs ------------------------------------------------------------------------------


@every_form
def test_rows_come_from_the_rung_that_had_numbers_for_them(job_of, output, form):
    job = job_of(form)
    first = job.compute(0, rung=Rung.FP16, rows=[0, 3])
    second = job.compute(0, rung=Rung.FP32, rows=[1])
    job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    codes = [PRECISION_CODES[rung] for rung in ("fp16", "fp32", "fp16")]
    assert found["precision"][:3].tolist() == codes
    for name in form.pooled_names:
        expected = [first.pooled[name][0], second.pooled[name][0], first.pooled[name][1]]
        assert np.array_equal(found[name][:3], expected)
    if form.per_residue:
        assert np.array_equal(residues_of(found, 0), first.residues[:3])
        assert np.array_equal(residues_of(found, 1), second.residues)
        assert np.array_equal(residues_of(found, 2), first.residues[3:])


def test_a_row_that_two_rungs_have_is_that_of_the_higher(job, output):
    fp32 = job.compute(0, rung=Rung.FP32, rows=[0, 1])
    selective = job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[1, 3])
    fp16 = job.compute(0, rung=Rung.FP16)
    job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    codes = [PRECISION_CODES[rung] for rung in ("fp32", "fp32", "selective_fp32")]
    assert found["precision"][:3].tolist() == codes
    assert np.array_equal(found["mean"][:3], [*fp32.pooled["mean"], selective.pooled["mean"][1]])
    assert not np.array_equal(found["mean"][:3], fp16.pooled["mean"])


@every_form
@pytest.mark.parametrize("missing", [[0], [1], [3], [0, 3], [0, 1, 3]])
def test_a_row_without_numbers_is_nan_and_its_precision_none(job_of, output, form, missing):
    job = job_of(form)
    kept = [record.row for record in job.batches[0] if record.row not in missing]
    part = job.compute(0, rows=kept)
    job.compute(1)
    job.compute(2)
    fetched = fetch(job.store, job.manifest, output)
    found = contents(output)
    assert fetched.rows_without_numbers == len(missing)
    assert found["rows"].tolist() == [record.row for record in RECORDS]
    assert found["lengths"].tolist() == [min(len(r.residues), MAX_RESIDUES) for r in RECORDS]
    is_missing = np.isin(found["rows"], missing)
    assert (found["precision"] == PRECISION_CODES["none"]).tolist() == is_missing.tolist()
    for name in form.pooled_names:
        assert np.isnan(found[name][is_missing]).all()
        assert np.array_equal(found[name][:3][~is_missing[:3]], part.pooled[name])
        assert np.isfinite(found[name][3:]).all()


@pytest.mark.parametrize("form", [FORMS["per residue"], FORMS["layers"]], ids=["one", "several"])
@pytest.mark.parametrize("missing", [[0], [1], [3], [0, 3], [0, 1, 3]])
def test_offsets_are_right_where_rows_are_missing(job_of, output, form, missing):
    job = job_of(form)
    rows = [record.row for record in job.batches[0]]
    part = job.compute(0, rows=[row for row in rows if row not in missing])
    after = job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    assert found["offsets"].tolist() == [0, *np.cumsum(found["lengths"])]
    numbers = [residues_of(found, rows.index(row)) for row in rows if row not in missing]
    assert np.array_equal(np.concatenate([part.residues[:0], *numbers]), part.residues)
    assert all(np.isnan(residues_of(found, rows.index(row))).all() for row in missing)
    assert np.array_equal(residues_of(found, 3), after.residues)


def test_the_file_says_how_many_rows_have_no_numbers(job, output):
    job.compute(0, rows=[1])
    job.compute(1)
    job.compute(2, rows=[])
    fetch(job.store, job.manifest, output)
    with h5py.File(output) as file:
        assert file.attrs["rows_without_numbers"] == 5


# --- what cannot be fetched ---------------------------------------------------------------------


def refusal(job: Job, output) -> str:
    """The message that a fetch ends with, which leaves no file."""
    with pytest.raises(UserError) as caught:
        fetch(job.store, job.manifest, output)
    assert not output.is_file()
    assert not output.with_name("out.h5.partial").is_file()
    return str(caught.value)


def test_a_job_with_a_batch_missing_is_refused_with_what_to_do(job, output):
    job.compute(0)
    job.compute(2)
    message = refusal(job, output)
    assert message.startswith(f"1 of 3 batches of {job.manifest.job} have no output yet")
    assert f"producer watch {job.manifest.job}" in message


def test_a_job_without_any_output_is_refused(job, output):
    assert refusal(job, output).startswith("3 of 3 batches")


def test_numbers_of_different_weights_do_not_come_into_one_file(job, output):
    job.compute(0, weights="these")
    job.compute(1, weights="those")
    job.compute(2, weights="these")
    key = shard_key(job.manifest.job, 1, Rung.FP16)
    assert refusal(job, output) == (
        f"{job.store.url}/{key} was computed with weights those, others of this job with these: "
        "their numbers do not belong in one file."
    )


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("keep", [0, 1000])
def test_a_damaged_shard_is_named_with_what_to_do(job, output, index, keep):
    job.compute_all()
    key = shard_key(job.manifest.job, index, Rung.FP16)
    path = job.store.root / key
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(job, output)
    assert message.startswith(f"{job.store.url}/{key} cannot be read (")
    assert "delete it and submit the same input again" in message


def test_a_shard_of_another_form_is_named(job, output):
    job.compute_all()
    job.form = FORMS["bos"]
    job.compute(1)
    assert f"{shard_key(job.manifest.job, 1, Rung.FP16)} cannot be read" in refusal(job, output)


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_an_output_that_cannot_be_written_is_named(job, output, blocked):
    job.compute_all()
    if blocked == "folder":  # there is a folder where the file should be
        output.mkdir(parents=True)
    else:  # there is a file where its folder should be
        output.parent.parent.mkdir()
        output.parent.write_text("")
    assert refusal(job, output).startswith(f"{output} cannot be written: ")


def test_an_earlier_output_stays_if_the_new_one_cannot_be_made(job, output):
    output.parent.mkdir(parents=True)
    output.write_text("earlier")
    job.compute(0)
    job.compute(1, weights="others")
    job.compute(2)
    with pytest.raises(UserError):
        fetch(job.store, job.manifest, output)
    assert [path.name for path in output.parent.iterdir()] == ["out.h5"]
    assert output.read_text() == "earlier"
