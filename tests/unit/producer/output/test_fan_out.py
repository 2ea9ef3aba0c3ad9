"""Rows that are identical to earlier ones have their vectors wherever the job is read."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.embeddings.file import load
from common.job.copies import read_copies
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.rungs import Rung
from common.store import FileStore
from common.wire.messages import Instability
from producer.output.fan_out import FanOut
from producer.output.fetch import fetch
from producer.output.job_embeddings import BatchStream, JobEmbeddings
from producer.output.job_shards import attributes_of_job, merged, shards_by_batch
from producer.output.kept_rows import KeptRows, RowSet
from producer.output.layouts.choice import LAYOUTS
from producer.output.verify import verify
from producer.output.wanted import Wanted
from producer.scheduling.retry import quarantined_rows
from tests.support.copies import compute, store_job
from tests.support.jobs import failed, ok
from tests.support.shards import embeddings_of
from tests.support.stores import folder_store

FORMS = {
    "mean": OutputForm(max_residues=5),
    "per residue": OutputForm(include=("mean", "per_residue"), layers=(-1, 2), max_residues=5),
    "all": OutputForm(
        include=("bos", "per_residue", "logits", "entropy", "pseudo_perplexity_unmasked"),
        max_residues=5,
    ),
    "contacts": OutputForm(include=("bos", "contacts", "entropy"), max_residues=5),
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

#: Batches with copies of rows of the same batch, of the one before, of one far before, of all rows
#: but the first, and none. Rows 2 and 9 were skipped; W has numbers at the second rung only.
LETTERS = [
    {0: "MKV", 1: "MKVLGAST", 3: "MKV", 4: "WAW"},
    {5: "AAA", 6: "MKVLGAST", 7: "CCC"},
    {8: "CCC", 10: "WAW", 11: "CCC", 12: "MKV", 13: "MKVLGAST"},
    {14: "DDDD"},
    {15: "MKV", 16: "DDDD", 17: "E"},
]
BATCHES = [
    [Record(row, f"id{row} é\ttab of {row}", letters) for row, letters in batch.items()]
    for batch in LETTERS
]
RECORDS = [record for batch in BATCHES for record in batch]
COPIES = [1, 1, 4, 0, 1]
SKIPPED = {"skipped": 2}


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


def finished(
    store: FileStore, form: OutputForm, *, dedup: bool = True, never=(), job: str = ""
) -> Manifest:
    """A job that is done, in which records with the letters of ``never`` are quarantined."""
    job = job or f"job-{'on' if dedup else 'off'}"
    manifest = store_job(store, BATCHES, form, dedup=dedup, job=job, **SKIPPED)
    for index in range(manifest.batches):
        finish(store, manifest, index, never)
    return manifest


def finish(
    store: FileStore, manifest: Manifest, index: int, never=(), *, ladder: bool = True
) -> None:
    compute(store, manifest, index, never=never, ladder=ladder)
    bad = [
        Instability(row=record.row, id=record.id, length=len(record.residues), reason="it ends")
        for record in BATCHES[index]
        if record.residues in never
    ]
    computed = rows_of(store, manifest, index)
    kept = tuple(each for each in bad if each.row in computed)
    if kept:
        add_to_quarantine(store, Quarantine(job=manifest.job, batch=index, rows=kept))


def rows_of(store: FileStore, manifest: Manifest, index: int) -> list[int]:
    copies = {copy.row for copy in read_copies(store, manifest, index)}
    return [record.row for record in BATCHES[index] if record.row not in copies]


def contents(path) -> dict[str, object]:
    with h5py.File(path) as file:
        return {name: file[name][:].tolist() for name in file}


def same(one, other) -> None:
    """Compare the datasets of two files, NaN too."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(np.array(one[name]), np.array(other[name]), err_msg=name)


def test_the_batches_of_these_tests_have_copies(store):
    assert store_job(store, BATCHES, FORMS["mean"], **SKIPPED).batch_copies == COPIES


@every_form
def test_a_file_is_the_same_as_if_all_rows_had_been_computed(store, tmp_path, form):
    files = []
    for dedup in (True, False):
        manifest = finished(store, form, dedup=dedup)
        files.append(tmp_path / f"{manifest.job}.h5")
        assert fetch(store, manifest, files[-1]).rows == len(RECORDS)
    same(*map(contents, files))
    found = contents(files[0])
    assert found["rows"] == [record.row for record in RECORDS]
    assert [text.decode() for text in found["headers"]] == [record.header for record in RECORDS]
    with h5py.File(files[0]) as file:
        assert file.attrs["records_identical"] == sum(COPIES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_as_if_all_rows_had_been_computed(tmp_path, layout):
    suffix = "" if LAYOUTS[layout].is_folder else LAYOUTS[layout].suffixes[0]
    written = []
    for dedup in (True, False):
        store = folder_store(tmp_path / f"store {dedup}")
        manifest = finished(store, FORMS["mean"], dedup=dedup, job="job")
        unsaid = manifest.report.model_copy(update={"identical": 0})
        folder = tmp_path / str(dedup)
        folder.mkdir()
        output = folder / f"e{suffix}"
        manifest = manifest.model_copy(update={"report": unsaid})
        fetch(store, manifest, output, wanted=Wanted(layout=layout))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        written.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert written[0].keys() == written[1].keys()
    assert written[0] == written[1]


@every_form
@pytest.mark.parametrize("never", [["MKV"], ["WAW", "CCC"]])
def test_a_copy_of_a_quarantined_row_is_quarantined_under_its_own_name(
    store, tmp_path, form, never
):
    files, reported, listed = [], [], []
    for dedup in (True, False):
        manifest = finished(store, form, dedup=dedup, never=never)
        files.append(tmp_path / f"{dedup}.h5")
        reported.append(fetch(store, manifest, files[-1]).quarantined)
        listed.append(quarantined_rows(store, manifest))
    same(*map(contents, files))
    rows = [record for record in RECORDS if record.residues in never]
    assert [(bad.row, bad.id) for bad in reported[0]] == [(r.row, r.id) for r in rows]
    assert reported[0] == reported[1] == listed[0] == listed[1]


@every_form
@pytest.mark.parametrize(
    "rows", [[16], [17], [10], [3], [0], [13, 4], [8, 12, 15]], ids=lambda rows: str(rows)
)
def test_chosen_rows_are_those_of_the_whole_file(store, tmp_path, form, rows):
    manifest = finished(store, form, never=["AAA"])
    fetch(store, manifest, tmp_path / "all.h5")
    ids = tuple(f"id{row}" for row in rows)
    fetched = fetch(store, manifest, tmp_path / "some.h5", wanted=Wanted(ids=ids))
    assert fetched.rows == len(rows)
    names = [*form.pooled_names, "precision", "headers", "lengths", "input_lengths"]
    with h5py.File(tmp_path / "some.h5") as some, h5py.File(tmp_path / "all.h5") as whole:
        assert some["rows"][:].tolist() == sorted(rows)
        here = np.isin(whole["rows"][:], rows)
        for name in names:
            np.testing.assert_array_equal(some[name][:], whole[name][:][here])
        if form.per_residue:
            letters = np.repeat(here, whole["lengths"][:])
            np.testing.assert_array_equal(some["residues"][:], whole["residues"][:][letters])


def test_only_batches_with_chosen_rows_and_their_originals_are_read(store, tmp_path):
    manifest = finished(store, FORMS["mean"])
    for index in (1, 3, 4):  # id12 is a copy of row 0
        (store.root / f"{manifest.job}/output/{index:07d}.fp16.h5").write_bytes(b"damaged")
    wanted = Wanted(ids=("id12",))
    assert fetch(store, manifest, tmp_path / "e.h5", wanted=wanted).rows == 1


@every_form
def test_a_jobs_embeddings_are_those_of_its_file(store, tmp_path, form):
    manifest = finished(store, form, never=["CCC"])
    found = JobEmbeddings(store, manifest)
    fetch(store, manifest, tmp_path / "e.h5")
    with load(tmp_path / "e.h5") as file:
        assert found.ids == file.ids
        assert found.precision == file.precision
        for name in form.pooled_names:
            np.testing.assert_array_equal(getattr(found, name), getattr(file, name))
        for name in {"residues", "logits"} & {"residues" * form.per_residue, *form.scores}:
            for id_ in reversed(found.ids):
                one, other = getattr(found, name)(id_), getattr(file, name)(id_)
                np.testing.assert_array_equal(one, other)


# --- of a job that is under way -----------------------------------------------------------------


@pytest.fixture
def open_job(store, ledger):
    manifest = store_job(store, BATCHES, FORMS["mean"], **SKIPPED)
    ledger.jobs.create(manifest, "m.fp16")

    def complete(index: int) -> None:
        finish(store, manifest, index, ladder=False)
        ledger.results.complete(ok(manifest.batch(index)))

    return manifest, complete


def test_a_stream_yields_a_batch_once_those_that_it_needs_are_complete(store, ledger, open_job):
    manifest, complete = open_job
    stream = BatchStream(store, ledger, manifest)

    def come() -> list[int]:
        found = []
        for ids, vectors in stream.completed():
            (index,) = [i for i, batch in enumerate(BATCHES) if batch[0].id == ids[0]]
            assert ids == [record.id for record in BATCHES[index]]
            assert np.isfinite(vectors).all()
            found.append(index)
        return found

    told = []
    for index in (4, 2, 3, 0, 1):
        complete(index)
        told.append(come())
    assert told == [[], [], [3, 4], [0], [1, 2]]
    stream.check_all_came()
    stream.close()


def test_a_stream_tells_what_a_failed_batch_held_back(store, ledger, open_job):
    manifest, complete = open_job
    stream = BatchStream(store, ledger, manifest)
    ledger.results.complete(failed(manifest.batch(1)))
    for index in (0, 2, 3, 4):
        complete(index)
    assert len(list(stream.completed())) == 3
    with pytest.raises(Exception, match=r"1 of 5 batches .* failed, and 1 more have copies of"):
        stream.check_all_came()
    stream.close()


def test_batches_are_made_whole_in_any_order_that_their_needs_allow(store):
    manifest = finished(store, FORMS["per residue"])
    keys = shards_by_batch(store, manifest)
    attributes = attributes_of_job(store, manifest, keys)
    wholes = []
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 1, 2]):
        fan_out = FanOut(store, manifest)
        came: set[int] = set()
        found = {}
        for index in order:
            assert fan_out.needs(index) <= came
            block = merged(store, manifest, index, keys[index], attributes)
            found[index] = fan_out.whole(index, *block)[0]
            came.add(index)
        wholes.append(found)
        fan_out.close()
    for index in range(5):
        one, other = wholes[0][index], wholes[1][index]
        assert one.rows.tolist() == [record.row for record in BATCHES[index]]
        assert one.headers == other.headers
        np.testing.assert_array_equal(one.residues, other.residues)
        np.testing.assert_array_equal(one.pooled["mean"], other.pooled["mean"])


def test_a_batch_that_comes_too_early_is_an_error(store):
    manifest = finished(store, FORMS["mean"])
    keys = shards_by_batch(store, manifest)
    attributes = attributes_of_job(store, manifest, keys)
    fan_out = FanOut(store, manifest)
    for index in (2, 1):
        with pytest.raises(ValueError, match="kept"):
            fan_out.whole(index, *merged(store, manifest, index, keys[index], attributes))
        fan_out.whole(3, *merged(store, manifest, 3, keys[3], attributes))
    fan_out.close()


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: data + b"1", None])
def test_damaged_copies_are_found(store, tmp_path, change):
    manifest = finished(store, FORMS["mean"])
    assert verify(store, manifest) == []
    path = store.root / manifest.copies_key(2)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    (problem,) = verify(store, manifest)
    assert manifest.copies_key(2) in problem
    with pytest.raises(Exception, match=manifest.copies_key(2)):
        fetch(store, manifest, tmp_path / "e.h5")


# --- what is kept -------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 3000)), st.lists(st.integers(0, 5000), max_size=50))
@settings(max_examples=50)
def test_a_set_of_rows_knows_its_rows_and_their_positions(rows, asked):
    found = RowSet()
    ordered = np.array(sorted(rows), np.int64)
    for part in np.array_split(ordered[::-1], 3):
        found.add(part)
    assert found.count() == len(rows)
    assert found.positions(ordered).tolist() == list(range(len(rows)))
    assert found.has(np.array(asked, np.int64)).tolist() == [row in rows for row in asked]


@every_form
def test_kept_rows_are_read_as_they_were_written(form):
    records = [Record(row, f"id{row}", "MKVLGAST"[: 1 + row % 7]) for row in range(9)]
    part = embeddings_of(records, form, 4, precision=Rung.FP32)
    kept = KeptRows(9)
    kept.write(5, part.take(np.arange(5, 9)))
    kept.write(0, part.take(np.arange(3)))
    with pytest.raises(ValueError, match="not kept"):
        kept.read(np.array([2, 3]))
    places = np.array([8, 0, 6, 6, 2])
    found, expected = kept.read(places), part.take(places)
    assert found.rows.tolist() == places.tolist()
    for name in ("lengths", "input_lengths", "precision"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.of_residues.keys() == expected.of_residues.keys()
    for name, values in (expected.of_residues | dict(expected.pooled)).items():
        one = (found.of_residues | dict(found.pooled))[name]
        assert one.dtype == values.dtype
        np.testing.assert_array_equal(one, values)
    kept.close()
