"""What is written of a job: the type, the kinds of vectors, the rows; and what is refused."""

import csv
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from common.embeddings.arrays import Embeddings
from common.embeddings.file import load
from common.embeddings.lookup import UnknownIdError
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from producer.fleet.fleet import Fleet
from producer.output import fetch as fetching
from producer.output.chosen import ids_named, rows_with_ids
from producer.output.file_rows import FileRows
from producer.output.layouts.choice import LAYOUTS
from producer.output.layouts.layout import Layout
from tests.support.outputs import DIM, HEADERS, same
from tests.support.shards import embeddings_of, write_shard

SUFFIX = {name: "" if layout.is_folder else layout.suffixes[0] for name, layout in LAYOUTS.items()}

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


# --- the type -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numbers_are_written_in_the_type_that_was_asked_for(job_with, dtype):
    job = job_with("mean", "per_residue", residue_dtype="float16")
    expected = job.expected()
    with load(job.fetch("e.h5", dtype=dtype)) as found:
        same(found.mean, expected["mean"].astype(dtype))
        same(found.residues(4), job.residues(4).astype(dtype))
    with np.load(job.fetch("e.npz", dtype=dtype)) as arrays:
        same(arrays["mean"], expected["mean"].astype(dtype))
        same(arrays["residues"], expected["residues"].astype(dtype))


@every_layout
def test_every_layout_holds_both_types(job_with, layout):
    job = job_with("mean")
    paths = [job.fetch(f"{d}{SUFFIX[layout]}", layout=layout, dtype=d) for d in ("float16", None)]
    sizes = [
        sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
        for path in paths
    ]
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_a_number_that_the_type_does_not_have_is_an_error(job_with, suffix, monkeypatch):
    job = job_with("mean")
    block = fetching.JobRows.block

    def large(self: fetching.JobRows, *arguments: object) -> tuple[Embeddings, tuple[()]]:
        part, bad = block(self, *arguments)
        return replace(part, pooled={"mean": part.pooled["mean"] * 1e6}), bad

    monkeypatch.setattr(fetching.JobRows, "block", large)
    with pytest.raises(UserError, match=r"float16 has none above 65,504: leave out --dtype"):
        job.fetch(f"e{suffix}", dtype="float16")
    assert not list(job.folder.iterdir())


# --- the kinds of vectors -----------------------------------------------------------------------


def test_only_the_vectors_that_are_wanted_are_read_and_written(job_with):
    job = job_with("mean", "per_residue", "bos")
    with h5py.File(job.fetch("e.h5", include=("bos",))) as file:
        assert {"mean", "residues", "offsets"}.isdisjoint(file)
        same(file["bos"], job.expected()["bos"])


def test_vectors_that_were_not_computed_are_an_error(job_with):
    with pytest.raises(UserError, match=r"include bos: only mean was computed"):
        job_with("mean").fetch("e.h5", include=("bos",))


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.h5ad"])
def test_a_layout_without_a_place_for_residues_refuses_them(job_with, name):
    job = job_with("mean", "per_residue")
    with pytest.raises(UserError, match=r"no place for the vectors of residues.*--include mean"):
        job.fetch(name)
    job.fetch(name, include=("mean",))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("e.csv", None), ("e.h5ad", None), ("e.npy", None), ("e.h5", "uniprot")),
        *(("e.npz", None), ("e.parquet", None), ("e.safetensors", None)),
    ],
)
def test_only_hdf5_and_folders_of_esm_hold_contacts(job_with, name, layout):
    job = job_with("mean", "contacts")
    with pytest.raises(UserError, match=r"no place for contacts\. .*name a \.h5 file"):
        job.fetch(name, layout=layout)
    job.fetch(name, layout=layout, include=("mean",))


def test_a_folder_of_esm_has_the_contacts_of_each_record(job_with):
    job = job_with("mean", "contacts")
    with load(job.fetch("e.h5")) as file:
        folder = job.fetch("e", layout="esm")
        with (folder / "index.csv").open(newline="") as index:
            names = [row["file"] for row in csv.DictReader(index)]
        assert len(names) == len(file)
        for position, name in enumerate(names):
            found = torch.load(folder / name, weights_only=True)["contacts"].numpy()
            np.testing.assert_array_equal(found, file.contacts(position))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_contacts_are_in_the_type_that_is_asked_for(job_with, dtype):
    job = job_with("mean", "contacts")
    with load(job.fetch("e.h5")) as whole, load(job.fetch("f.h5", dtype=dtype)) as file:
        found, expected = file.contacts(1), whole.contacts(1)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.astype(dtype))


def test_contacts_of_some_ids_are_theirs(job_with):
    job = job_with("mean", "contacts")
    with load(job.fetch("e.h5")) as whole:
        chosen = whole.ids[1]
        with load(job.fetch("f.h5", ids=(chosen,))) as file:
            assert len(file.datasets["contacts"]) == int((file.lengths**2).sum())
            np.testing.assert_array_equal(file.contacts(0), whole.contacts(1))


@pytest.mark.parametrize(
    ("name", "layout", "refused"),
    [
        ("e.csv", None, "entropy"),
        ("e.tsv", None, "entropy"),
        ("e.h5ad", None, "entropy"),
        ("e.npy", None, "entropy, pseudo_perplexity"),
        ("e.h5", "uniprot", "entropy, pseudo_perplexity"),
        ("e", "esm", "entropy, pseudo_perplexity"),
    ],
)
def test_a_layout_without_a_place_for_scores_refuses_them(job_with, name, layout, refused):
    job = job_with("mean", "entropy", "pseudo_perplexity")
    with pytest.raises(UserError, match=rf"no place for {refused}\. .*--include mean"):
        job.fetch(name, layout=layout)
    job.fetch(name, layout=layout, include=("mean",))


@pytest.mark.parametrize(("name", "layout"), [("e.npy", None), ("e.h5", "uniprot")])
def test_a_layout_of_one_kind_of_vectors_refuses_two(job_with, name, layout):
    with pytest.raises(UserError, match=r"holds one kind of vectors.*--include mean"):
        job_with("mean", "bos").fetch(name, layout=layout)


# --- the rows -----------------------------------------------------------------------------------


@every_layout
def test_rows_are_chosen_by_their_ids_in_every_layout(job_with, layout):
    job = job_with("mean")
    ids = ("last", "twice", "P69905", "without")
    fetched = job.fetched(f"e{SUFFIX[layout]}", layout=layout, ids=ids)
    assert fetched.rows == 6
    assert [bad.id for bad in fetched.quarantined] == ["without"]


def test_chosen_rows_are_those_of_the_whole_file_in_its_order(job_with):
    job = job_with("mean", "per_residue")
    with load(job.fetch("e.h5", ids=("last", "twice", "HBA_HUMAN"))) as found:
        assert found.ids == ["sp|P69905|HBA_HUMAN", "twice", "twice", "twice", "last"]
        places = [0, 3, 4, 5, 14]
        same(found.mean, job.expected()["mean"][places])
        for position, place in enumerate(places):
            same(found.residues(position), job.residues(place))
        assert found.attributes["chosen_from"] == len(HEADERS)


def test_an_id_that_no_row_has_is_an_error_before_anything_is_written(job_with):
    with pytest.raises(UnknownIdError, match=r"the id 'P0', nor 1 more of those asked for"):
        job_with("mean").fetch("e.h5", ids=("last", "P0", "P1"))


def test_an_id_as_a_whole_comes_before_a_part_of_another(tmp_path):
    form = OutputForm(max_residues=9)
    records = [Record(row, id_, "MK") for row, id_ in enumerate(["sp|P1|X", "P1", "sp|P2|X"])]
    path = write_shard(tmp_path / "e.h5", form, DIM, embeddings_of(records, form, DIM))
    with load(path) as file:
        assert rows_with_ids(FileRows(file), ["P1", "P2"]).positions == {0: [1, 2]}
        assert rows_with_ids(FileRows(file), ["X", "P1"]).positions == {0: [0, 1, 2]}


def test_ids_come_from_files_as_well(tmp_path):
    (tmp_path / "ids.txt").write_text("\ufeffP1\n\n>P2 a header\n  P3\t0.5\n", encoding="utf-8")
    assert ids_named(["P0", str(tmp_path / "ids.txt")]) == ("P0", "P1", "P2", "P3")
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match=r"the file has no ids"):
        ids_named([str(tmp_path / "empty")])


# --- what is refused before any work ------------------------------------------------------------


@pytest.fixture
def job(job_with, monkeypatch):
    done = job_with("mean")
    monkeypatch.chdir(done.folder)
    return Fleet(store=done.store.url).job(done.manifest.job)


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        (
            "e.npz",
            "uniprot",
            "a file of layout uniprot is named .h5 or .hdf5 or .hdf, such as e.h5",
        ),
        ("e.h5", "esm", "layout esm is a folder of files: give it a name without .h5, such as e."),
        ("e.h5", "tree", "layout: 'tree' is none of h5, uniprot, esm"),
    ],
)
def test_a_layout_and_a_name_that_contradict_each_other_are_refused(job, name, layout, message):
    with pytest.raises(UserError, match=re.escape(message)):
        job.fetch(name, layout=layout)


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"include": "mode"}])
def test_values_that_cannot_be_are_refused(job, options):
    with pytest.raises(UserError, match=r"is none of"):
        job.fetch("e.h5", **options)


def test_a_package_that_is_missing_is_said_with_the_extra_that_installs_it(job, monkeypatch):
    monkeypatch.setattr(LAYOUTS["parquet"].__class__, "package", "no_such_package")
    with pytest.raises(UserError, match=r"no_such_package is not installed.*\[parquet\]"):
        job.fetch("e.parquet")


# --- what may be replaced -----------------------------------------------------------------------

KEEPS_ATTRIBUTES = [
    name
    for name, layout in LAYOUTS.items()
    if layout.__class__.attributes_of is not Layout.attributes_of
]


@pytest.mark.parametrize("layout", KEEPS_ATTRIBUTES)
def test_an_output_of_the_same_job_is_replaced(job, layout):
    for _ in range(2):
        job.fetch(f"e{SUFFIX[layout]}", layout=layout)
    other = job.manifest.model_copy(update={"model_digest": "other"})
    job.fetch(f"e{SUFFIX[layout]}", layout=layout)
    vars(job)["manifest"] = other
    job.fetch(f"e{SUFFIX[layout]}", layout=layout)  # the earlier one's weights are not known
    vars(job)["manifest"] = other.model_copy(update={"model_digest": "another"})
    with pytest.raises(UserError, match=r"exists and has the embeddings of job"):
        job.fetch(f"e{SUFFIX[layout]}", layout=layout)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - set(KEEPS_ATTRIBUTES)))
def test_an_output_that_does_not_say_what_it_is_of_is_kept(job, layout):
    name = f"e{SUFFIX[layout]}"
    job.fetch(name)
    with pytest.raises(UserError, match=r"exists and is another file"):
        job.fetch(name)
    job.fetch(name, overwrite=True)


def test_the_table_beside_an_array_is_no_other_s(job, tmp_path):
    (tmp_path / "outputs" / "e.ids.csv").write_text("mine")
    with pytest.raises(UserError, match=r"e.ids.csv exists and is another file"):
        job.fetch("e.npy")


def test_a_folder_with_other_files_is_never_replaced(job, tmp_path):
    folder = tmp_path / "outputs" / "mine"
    folder.mkdir()
    job.fetch("mine", layout="esm")  # it was empty
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is a folder with other files, and stays as it is"):
        job.fetch("mine", layout="esm", overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
