"""A file of embeddings, read by id."""

import sys

import h5py
import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.embeddings.file import EmbeddingFileError, load
from common.embeddings.lookup import UnknownIdError
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from tests.conftest import ROOT
from tests.support.shards import embeddings_of, write_shard

DIM = 4
RECORDS = [
    Record(0, "sp|P69905|HBA_HUMAN Hemoglobin", "MVLSPADKTN"),
    Record(1, "P2 words", "GAVL"),
    Record(2, "twice", "MKT"),
    Record(3, "twice", "MKTA"),
]
ATTRIBUTES = {"model": "m", "weights": "w", "layers": [6], "dim": DIM}
FULL = OutputForm(include=("mean", "bos", "per_residue"), max_residues=1022)
PREVIOUS = ROOT / "tests" / "data" / "previous_version" / "store" / "done-0123456789ab" / "output"


def file_of(path, form=FULL, **attributes) -> Embeddings:
    part = embeddings_of(RECORDS, form, DIM)
    write_shard(path, form, DIM, part, **(ATTRIBUTES | attributes))
    return part


@pytest.fixture
def path(tmp_path):
    return tmp_path / "e.h5"


@pytest.fixture
def written(path):
    return file_of(path)


def test_everything_that_was_written_is_read(path, written):
    with load(str(path)) as found:
        assert len(found) == 4
        assert list(found) == found.ids == written.ids
        assert np.array_equal(found.mean, written.pooled["mean"])
        assert np.array_equal(found.bos, written.pooled["bos"])
        assert found.rows.tolist() == [0, 1, 2, 3]
        assert found.lengths.tolist() == [10, 4, 3, 4]
        assert found.precision == ["fp16"] * 4
        assert found.attributes == ATTRIBUTES
        assert found.model == "m"
        assert repr(found) == f"EmbeddingFile({str(path)!r}, model m)"


def test_one_sequence_is_found_by_its_id_a_part_of_it_or_its_position(path, written):
    found = load(path)
    assert "P69905" in found
    assert "P69906" not in found
    for id_ in ("P69905", "sp|P69905|HBA_HUMAN", 0, -4):
        assert np.array_equal(found[id_], written.pooled["mean"][0])
        assert np.array_equal(found.residues(id_), written.residues[:10])
    assert np.array_equal(found.residues("P2"), written.residues[10:14])
    _ = found.mean
    assert np.array_equal(found["P2"], written.pooled["mean"][1])


def test_one_vector_is_read_without_all_others(path, written, monkeypatch):
    found = load(path)
    monkeypatch.setattr(found, "_read", lambda name: list(written.ids) if name == "ids" else None)
    assert np.array_equal(found["P2"], written.pooled["mean"][1])


def test_an_unknown_id_is_a_key_error_that_names_near_ids(path, written):
    found = load(path)
    with pytest.raises(KeyError, match=r"'P3'.*did you mean 'P2'"):
        found["P3"]
    with pytest.raises(KeyError, match=r"'P69995': did you mean 'P69905'"):
        found["P69995"]
    with pytest.raises(UnknownIdError) as caught:
        found.residues("P3")
    assert caught.value.id == "P3"
    with pytest.raises(IndexError, match="no position 4 among 4 sequences"):
        found[4]


def test_several_sequences_are_a_list_a_slice_or_a_mask(path, written):
    mean = written.pooled["mean"]
    with load(path) as found:
        assert np.array_equal(found[1:3], mean[1:3])
        assert "mean" not in vars(found)  # a slice does not read all of it
        assert found[3:1].shape == (0, DIM)
        assert np.array_equal(found[-2:], mean[-2:])
        with pytest.raises(TypeError, match="slice indices"):
            found["P2":"twice"]
        assert "mean" not in vars(found)
        assert np.array_equal(found[::-1], mean[::-1])
        assert np.array_equal(found[["P2", "P69905", "P2"]], mean[[1, 0, 1]])
        assert np.array_equal(found[[-1, "P2"]], mean[[3, 1]])
        assert np.array_equal(found[np.array([2, 0])], mean[[2, 0]])
        assert np.array_equal(found[found.lengths > 3], mean[[0, 1, 3]])
        assert found[[]].shape == (0, DIM)
        assert [id_ for id_, _ in found.items()] == written.ids
        with pytest.raises(KeyError, match="did you mean 'P2'"):
            found[["P69905", "P3"]]
        with pytest.raises(IndexError, match=r"mask has shape \(2,\), not \(4,\)"):
            found[np.array([True, False])]


@pytest.mark.parametrize("key", [None, 1.0, True, b"P2", [None], [["P2"]], [True, False]])
def test_what_is_neither_an_id_nor_a_position_is_a_type_error(path, written, key):
    with pytest.raises(TypeError, match="neither an id nor a position"):
        load(path)[key]


def test_ids_that_occur_once_make_a_dict(path):
    part = embeddings_of(RECORDS[:2], FULL, DIM)
    write_shard(path, FULL, DIM, part, **ATTRIBUTES)
    assert np.array_equal(dict(load(path))["P2"], part.pooled["mean"][1])


def test_a_file_without_offsets_has_residues_too(path, written):
    with h5py.File(path, "r+") as file:
        if "offsets" in file:
            del file["offsets"]
    assert np.array_equal(load(path).residues("P2"), written.residues[10:14])


def test_residues_are_found_by_the_offsets_of_the_file(path, written):
    found = load(path)
    assert np.array_equal(found.residues("P2"), written.residues[10:14])
    assert "lengths" not in vars(found)  # one for each of millions of rows


def test_an_id_that_two_sequences_have_is_told_apart_by_position(path, written):
    found = load(path)
    with pytest.raises(KeyError, match=r"2 records have the id 'twice': positions\('twice'\)"):
        found["twice"]
    assert found.positions("twice") == [2, 3]
    assert np.array_equal(found[3], written.pooled["mean"][3])
    assert found.residues(3).shape == (4, DIM)


def test_vectors_that_were_not_included_are_an_error(path):
    file_of(path, OutputForm(include=("bos",), max_residues=1022))
    found = load(path)
    with pytest.raises(UserError, match="no mean: add it to include"):
        found["P2"]
    with pytest.raises(UserError, match="no per_residue: add it to include"):
        found.residues("P2")


def test_a_closed_file_keeps_what_was_read(path, written):
    with load(path) as found:
        _ = found.mean
    assert np.array_equal(found.mean, written.pooled["mean"])
    with pytest.raises(EmbeddingFileError, match="is closed: load it again"):
        _ = found.bos
    assert repr(found).endswith("closed)")


def test_a_file_that_is_not_there_or_not_hdf5_is_an_error_with_its_path(tmp_path):
    with pytest.raises(EmbeddingFileError, match="no such file") as caught:
        load(tmp_path / "none.h5")
    assert caught.value.path == str(tmp_path / "none.h5")
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">a\nMKT\n")
    with pytest.raises(EmbeddingFileError, match="is not an HDF5 file") as caught:
        load(fasta)
    assert caught.value.path == str(fasta)


def test_a_folder_is_an_error_that_says_so(tmp_path):
    with pytest.raises(EmbeddingFileError, match="is a folder: name the HDF5 file"):
        load(tmp_path)


def test_a_memory_that_is_too_small_is_not_called_damage(path, written, monkeypatch):
    def read(_name):
        raise MemoryError

    found = load(path)
    monkeypatch.setattr(found, "_read", read)
    with pytest.raises(MemoryError):
        _ = found.mean


def test_a_truncated_file_is_an_error(path, written):
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(EmbeddingFileError, match="or only a part of one"):
        load(path)


def test_an_hdf5_file_of_another_program_is_an_error(path):
    with h5py.File(path, "w") as file:
        file["P1"] = [1.0, 2.0]
    with pytest.raises(EmbeddingFileError, match="not one of embeddings: it has no dataset 'ids'"):
        load(path)


@pytest.mark.parametrize("name", ["mean", "lengths", "ids"])
def test_values_that_changed_since_they_were_written_are_an_error(path, written, name):
    with h5py.File(path, "r+") as file:
        file[name][1] = "other" if name == "ids" else 7
    found = load(path)
    with pytest.raises(EmbeddingFileError, match=f"{name} cannot be read .*another checksum"):
        getattr(found, name)


def test_a_file_of_an_earlier_version_is_read():
    with load(PREVIOUS / "0000000.fp16.h5") as found:
        assert found.mean.shape == (2, 320)
        assert found.model == "random:esm2_t6_8M_UR50D"
        assert np.array_equal(found[found.ids[1]], found.mean[1])


# --- for other libraries ------------------------------------------------------------------------


def test_pandas_gets_a_row_for_each_id(path, written):
    frame = load(path).to_pandas()
    assert frame.shape == (4, DIM)
    assert np.array_equal(frame.loc["P2"], written.pooled["mean"][1])


def test_pandas_gets_columns_of_layer_and_dimension(path):
    written = file_of(path, OutputForm(layers=(-1, 3), max_residues=1022), layers=[6, 3])
    frame = load(path).to_pandas()
    assert np.array_equal(frame[3].loc["P2"], written.pooled["mean"][1, 1])


def test_torch_gets_a_tensor(path, written):
    tensor = load(path).to_torch()
    assert tensor.shape == (4, DIM)
    assert np.array_equal(tensor.numpy(), written.pooled["mean"])


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_what_other_libraries_get_is_a_copy(path, written):
    found = load(path)
    found.to_torch()[0] = 7
    frame = found.to_pandas()
    frame.iloc[0, 0] = 7
    found.to_anndata().X[0] = 7
    assert np.array_equal(found.mean, written.pooled["mean"])


def test_a_file_without_rows_is_an_empty_table(path):
    write_shard(path, FULL, DIM, embeddings_of([], FULL, DIM), **ATTRIBUTES)
    found = load(path)
    assert len(found) == 0
    assert found.to_pandas().shape == (0, DIM)
    assert found.to_torch().shape == (0, DIM)
    assert found.to_anndata().shape == (0, DIM)


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_anndata_gets_lengths_and_precision_beside_the_vectors(path, written):
    data = load(path).to_anndata()
    assert np.array_equal(data.X, written.pooled["mean"])
    assert data.obs["length"].tolist() == [10, 4, 3, 4]
    assert data.obs["precision"].tolist() == ["fp16"] * 4
    assert data.uns["model"] == "m"


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_anndata_gets_layers_by_their_numbers(path):
    written = file_of(path, OutputForm(layers=(-1, 3), max_residues=1022), layers=[6, 3])
    data = load(path).to_anndata()
    assert np.array_equal(data.layers["3"], written.pooled["mean"][:, 1])


@pytest.mark.parametrize("package", ["pandas", "torch", "anndata"])
def test_a_library_that_is_missing_is_named_with_its_installation(
    path, written, package, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"{package} is not installed: pip install {package}"):
        getattr(load(path), f"to_{package}")()


def test_a_file_for_which_there_is_no_memory_is_not_called_damaged(tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    (tmp_path / "e.h5").touch()
    monkeypatch.setattr(h5py, "File", no_memory)
    with pytest.raises(MemoryError):
        load(tmp_path / "e.h5")
