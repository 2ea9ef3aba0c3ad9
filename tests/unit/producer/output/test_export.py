"""Exporting a file to another layout: equal to a fetch in that layout, in blocks, damage seen."""

import h5py
import numpy as np
import pytest

import virnucpro_fleet as vf
from common.embeddings.file import EmbeddingFileError, load
from common.errors import UserError
from producer.fleet.export import export
from producer.output import file_rows
from producer.output.layouts.choice import LAYOUTS
from tests.support.outputs import DIM, HEADERS, HardJob, check_table, same

ALL = ("mean", "per_residue", "bos", "max", "std")


@pytest.fixture
def job(job_with) -> HardJob:
    return job_with(*ALL, layers=(-1, 2), residue_dtype="float16")


def contents(path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


@pytest.mark.parametrize(
    "include",
    [
        ALL,
        ("mean", "entropy", "pseudo_perplexity_unmasked", "logits"),
        ("pseudo_perplexity_unmasked", "mean"),
        ("pseudo_perplexity_unmasked", "entropy"),
        ("mean", "contacts"),
        ("bos", "per_residue", "contacts"),
    ],
)
@pytest.mark.parametrize("most_rows", [1, 4, 100])
def test_an_exported_hdf5_file_is_the_same_in_blocks_of_any_size(
    job_with, monkeypatch, most_rows, include
):
    job = job_with(*include, layers=(-1, 2), residue_dtype="float16")
    monkeypatch.setattr(file_rows, "BLOCK_ROWS", most_rows)
    path = job.fetch("e.h5")
    export(path, job.folder / "again.h5")
    found, expected = contents(job.folder / "again.h5"), contents(path)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
    with load(path) as one, load(job.folder / "again.h5") as other:
        assert one.attributes == other.attributes
        assert one.ids == other.ids  # with their checksum


def test_blocks_are_small_whatever_a_row_is(job, monkeypatch):
    monkeypatch.setattr(file_rows, "BLOCK_BYTES", 5 * 2 * DIM * 2)  # of five residues
    path = job.fetch("e.h5")
    with load(path) as file:
        rows = file_rows.FileRows(file)
        sizes = [rows.block(n, rows.form)[0].lengths.tolist() for n in range(rows.blocks)]
    assert sum(map(len, sizes)) == len(HEADERS)
    assert all(sum(lengths) <= 5 or len(lengths) == 1 for lengths in sizes)


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if name != "h5"])
def test_an_export_is_the_file_that_a_fetch_writes(job, layout):
    suffix = "" if LAYOUTS[layout].is_folder else LAYOUTS[layout].suffixes[0]
    wanted = {"layout": layout, "include": ("mean",)}
    fetched = job.fetch(f"fetched{suffix}", **wanted)
    path = job.fetch("e.h5")
    exported = job.folder / f"exported{suffix}"
    vf.export(path, exported, **wanted)
    files = sorted(fetched.iterdir()) if fetched.is_dir() else [fetched]
    for file in files:
        other = exported / file.name if fetched.is_dir() else exported
        if suffix in (".npz", ".h5", ".h5ad"):  # these have times in them
            assert file.stat().st_size == other.stat().st_size
        elif suffix != ".parquet":  # row groups are others
            assert file.read_bytes() == other.read_bytes()


def test_scores_alone_are_exported_as_a_table_too(job_with):
    job = job_with("entropy", "pseudo_perplexity_unmasked")
    path = job.fetch("e.h5")
    vf.export(path, job.folder / "e.csv", include="pseudo_perplexity_unmasked")
    assert "pseudo_perplexity_unmasked" in (job.folder / "e.csv").read_text().splitlines()[0]


def test_an_export_to_npz_has_equal_arrays(job):
    export(job.fetch("e.h5"), job.folder / "e.npz")
    expected = job.expected()
    with np.load(job.folder / "e.npz") as arrays:
        for name in (*("mean", "bos", "max", "std"), "residues", "offsets", "rows"):
            same(arrays[name], expected[name])
        check_table(
            {
                "id": arrays["ids"],
                "header": expected["headers"],
                "precision": arrays["precision"],
                **{name: arrays[f"{name}s"] for name in ("row", "length", "input_length")},
            },
            expected,
        )


def test_a_file_of_float16_stays_one_unless_another_type_is_asked_for(job):
    half = job.fetch("half.h5", dtype="float16")
    export(half, job.folder / "half.npz")
    export(half, job.folder / "single.npz", dtype="float32")
    with np.load(job.folder / "half.npz") as found, np.load(job.folder / "single.npz") as single:
        assert found["mean"].dtype == np.float16
        same(single["mean"], found["mean"].astype(np.float32))


def test_a_file_of_an_earlier_version_without_headers_is_exported(job):
    path = job.fetch("e.h5")
    with h5py.File(path, "a") as file:
        for name in ("headers", "input_lengths", "offsets"):
            del file[name]
    export(path, job.folder / "e.npz")
    with np.load(job.folder / "e.npz") as arrays:
        same(arrays["residues"], job.expected()["residues"])
        same(arrays["input_lengths"], job.expected()["lengths"])


def test_a_changed_number_is_seen_and_no_output_is_left(job):
    path = job.fetch("e.h5")
    with h5py.File(path, "a") as file:
        file["mean"][3] = 1.0
    with pytest.raises(EmbeddingFileError, match=r"mean has another checksum.*fetch it again"):
        export(path, job.folder / "e.npz")
    assert [file.name for file in job.folder.iterdir()] == ["e.h5"]


def test_a_file_is_not_exported_onto_itself(job):
    path = job.fetch("e.h5")
    before = path.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"is the input itself"):
            export(path, path, overwrite=overwrite)
    assert path.read_bytes() == before


def test_what_is_no_file_of_embeddings_is_not_exported(job):
    path = job.fetch("u.h5", layout="uniprot", include=("mean",))
    with pytest.raises(EmbeddingFileError, match=r"not one of embeddings"):
        export(path, job.folder / "e.npz")


def test_a_file_without_rows_is_exported(job, tmp_path):
    path = job.fetch("e.h5", ids=())
    for name in ("none.npz", "none.parquet", "none.csv", "none.safetensors"):
        assert export(path, tmp_path / name, include="mean").rows == 0
    with np.load(tmp_path / "none.npz") as arrays:
        assert arrays["mean"].shape == (0, 2, DIM)
