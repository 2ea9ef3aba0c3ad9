"""Shards: every number and every text comes back from HDF5 as it went in."""

from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.batchfile import first_word
from common.manifest import OutputForm
from common.rungs import PRECISION_CODES, Rung
from common.shard import (
    Embeddings,
    create_embedding_file,
    open_embedding_file,
    read_embeddings,
)

DIM = 4

forms = st.builds(
    OutputForm,
    include=st.lists(st.sampled_from(["mean", "bos", "per_residue"]), min_size=1, unique=True).map(
        tuple
    ),
    layers=st.sampled_from([(-1,), (0,), (-1, 0), (1, 2, 3)]),
    residue_dtype=st.sampled_from(["float16", "float32"]),
    max_residues=st.just(1022),
)
#: HDF5's strings end at NUL, and no FASTA header has a line end.
headers = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))


def read(path: Path, form: OutputForm) -> Embeddings:
    with open_embedding_file(path) as file:
        return read_embeddings(file, form)


def assert_same(found: Embeddings, expected: Embeddings) -> None:
    for name in (field.name for field in fields(Embeddings)):
        one, other = getattr(found, name), getattr(expected, name)
        if name == "pooled":
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)
        elif isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        else:
            assert one == other


@given(forms, st.lists(st.tuples(st.integers(1, 9), headers), max_size=20))
def test_rows_come_back_as_they_were(tmp_path_factory, form, records):
    embeddings = embeddings_of(form, [n for n, _ in records], [header for _, header in records])
    path = write(tmp_path_factory.getbasetemp() / "shard.h5", form, embeddings)
    assert_same(read(path, form), embeddings)


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=5))
def test_rows_that_are_written_in_parts_follow_each_other(tmp_path_factory, counts):
    form = OutputForm(include=("mean", "per_residue"), max_residues=1022)
    parts = [embeddings_of(form, lengths, ["r"] * len(lengths)) for lengths in counts]
    path = write(tmp_path_factory.getbasetemp() / "parts.h5", form, *parts)
    lengths = [length for part in counts for length in part]
    with h5py.File(path) as file:
        assert file["lengths"][:].tolist() == lengths
        assert file["offsets"][:].tolist() == np.cumsum([0, *lengths]).tolist()
        expected = [part.residues for part in parts if part.residues is not None]
        assert np.array_equal(file["residues"][:], np.concatenate([np.empty((0, DIM)), *expected]))


@pytest.mark.parametrize("layers", [(-1,), (-1, 6)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_file_has_the_datasets_that_the_form_asks_for(tmp_path, layers, dtype):
    form = OutputForm(
        include=("bos", "per_residue"), layers=layers, residue_dtype=dtype, max_residues=1022
    )
    path = write(tmp_path / "shard.h5", form, embeddings_of(form, [3, 2], ["a", "b"]))
    width = (DIM,) if len(layers) == 1 else (len(layers), DIM)
    with h5py.File(path) as file:
        assert set(file) == {
            *("ids", "headers", "rows", "lengths", "input_lengths", "precision"),
            *("bos", "residues", "offsets"),
        }
        assert (file["bos"].shape, file["bos"].dtype) == ((2, *width), np.float32)
        assert (file["residues"].shape, file["residues"].dtype) == ((5, *width), np.dtype(dtype))


def test_precision_is_an_enumeration_whose_names_any_reader_sees(tmp_path):
    form = OutputForm(max_residues=1022)
    path = write(tmp_path / "shard.h5", form, embeddings_of(form, [3], ["a"]))
    with h5py.File(path) as file:
        names = h5py.check_enum_dtype(file["precision"].dtype)
    assert names == {"none": 0, "fp16": 1, "bf16": 2, "selective_fp32": 3, "fp32": 4}
    assert set(names) == {"none", *Rung}


@pytest.mark.parametrize("text", ["i" * 10_240, "protéine", "中文", "🧬", "a/b c", ""])
def test_ids_of_any_kind_are_utf8_strings(tmp_path, text):
    form = OutputForm(max_residues=1022)
    path = write(tmp_path / "shard.h5", form, embeddings_of(form, [3], [text]))
    with h5py.File(path) as file:
        assert h5py.check_string_dtype(file["headers"].dtype).encoding == "utf-8"
        assert file["headers"][0] == text.encode()
        assert file["ids"][0] == first_word(text).encode()


def test_attributes_stand_in_the_file(tmp_path):
    form = OutputForm(max_residues=1022)
    path = write(tmp_path / "shard.h5", form, weights="abc", layers=[-1, 6], dim=DIM)
    with open_embedding_file(path) as file:
        assert file.attrs["weights"] == "abc"
        assert file.attrs["layers"].tolist() == [-1, 6]
        assert file.attrs["dim"] == DIM


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_cut_file_is_an_error(tmp_path, keep):
    form = OutputForm(include=("mean", "per_residue"), max_residues=1022)
    path = write(tmp_path / "shard.h5", form, embeddings_of(form, [9] * 100, ["a"] * 100))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(OSError, match="file"):
        read(path, form)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    form = OutputForm(max_residues=1022)
    with pytest.raises(OSError, match="unable to"):
        write(tmp_path / "none" / "shard.h5", form)
