"""A damaged file of embeddings is one error that names it, whatever h5py says of it."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.embeddings.file import EmbeddingFileError, load
from common.job.output_form import OutputForm
from common.job.records import Record
from tests.support.shards import embeddings_of, write_shard

FORM = OutputForm(max_residues=10)


@pytest.fixture
def path(tmp_path) -> Path:
    records = [Record(row, f"id{row}", "MKV") for row in range(3)]
    embeddings = embeddings_of(records, FORM, 4)
    return write_shard(tmp_path / "e.h5", FORM, 4, embeddings, model="m")


def read_all(path: Path) -> None:
    with load(path) as file:
        _ = len(file), file.ids, file.rows, file.lengths, file.precision, file[0], file.mean
        file.to_pandas()


@pytest.mark.parametrize("name", ["ids", "rows", "lengths", "precision", "mean"])
@pytest.mark.parametrize(
    "make",
    [
        lambda file, name: file.create_dataset(name, (10**12,), "int64"),
        lambda file, name: file.create_dataset(name, (2,), "int64"),
        lambda file, name: file.create_dataset(name, (), "int64"),
        lambda file, name: file.create_group(name),
    ],
    ids=["huge", "short", "scalar", "group"],
)
def test_a_dataset_that_is_not_what_was_written_is_an_error(
    path, name, make: Callable[[h5py.File, str], object]
):
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file, name)
    with pytest.raises(EmbeddingFileError, match=r"e\.h5: .* cannot be read \(") as caught:
        read_all(path)
    assert caught.value.path == str(path)


def test_no_dataset_is_allocated_as_a_damaged_file_declares_it(path):
    with h5py.File(path, "r+") as file:
        for name in ("ids", "rows", "lengths", "precision", "mean"):
            del file[name]
            dtype = h5py.string_dtype() if name == "ids" else "int64"
            file.create_dataset(name, (10**12,), dtype)
    with pytest.raises(EmbeddingFileError, match="more than the file has"):
        read_all(path)


def test_a_file_whose_list_of_datasets_is_damaged_is_an_error(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b"HEAP", b"HEAQ"))
    with pytest.raises(EmbeddingFileError, match=r"e\.h5"):
        read_all(path)


def test_a_compressed_copy_is_read_too(path):
    """It has fewer bytes than its datasets."""
    mean = np.zeros((10_000, 4), np.float32)
    with h5py.File(path, "w") as file:
        for name in ("rows", "lengths"):
            file[name] = np.arange(10_000)
        file["ids"] = [str(row) for row in range(10_000)]
        file.create_dataset("precision", (10_000,), "uint8", compression="gzip")
        file.create_dataset("mean", data=mean, compression="gzip")
        file.attrs["model"] = "m"
    with load(path) as file:
        assert np.array_equal(file.mean, mean)
