"""Each layout, read by the tool that its users have, has what the HDF5 file has."""

import json

import duckdb
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
from safetensors import safe_open

from common.errors import UserError
from tests.support.outputs import DIM, HEADERS, by_layer, check_table, same

ALL = ("mean", "per_residue", "bos", "max", "std")
LAYERS = (-1, 2)
OF_RECORDS = ("pseudo_perplexity_unmasked", "pseudo_perplexity")
SCORES = (*OF_RECORDS, "logits", "entropy")

every_number_of_layers = pytest.mark.parametrize("layers", [(-1,), LAYERS], ids=["one", "two"])


@pytest.mark.parametrize("layout", ["h5", "uniprot", "h5ad"])
def test_a_file_of_hdf5_has_no_times_so_that_equal_rows_are_equal_files(job_with, layout):
    path = job_with("mean").fetch("e.h5ad" if layout == "h5ad" else "e.h5", layout=layout)
    timed = []

    def look(name, item):
        if h5py.h5g.get_objinfo(item.id).mtime:
            timed.append(name)

    with h5py.File(path) as file:
        file.visititems(look)
    assert timed == []


# --- Parquet ------------------------------------------------------------------------------------


@every_number_of_layers
def test_parquet_is_read_by_pandas(job_with, layers):
    job = job_with(*ALL, layers=layers)
    path, expected = job.fetch("e.parquet"), job.expected()
    table = pd.read_parquet(path)
    assert table["id"].tolist() == expected["ids"].tolist()
    assert table["header"].tolist() == HEADERS
    assert table["precision"].tolist() == expected["precision"].tolist()
    for name, column in (("row", "rows"), ("length", "lengths"), ("input_length", "input_lengths")):
        same(table[name], expected[column])
    for kind in ("mean", "bos", "max", "std"):
        for name, values in by_layer(kind, layers, expected[kind]).items():
            same(np.stack(table[name]), values)
    for position in range(len(HEADERS)):
        residues = job.residues(position)
        for name, values in by_layer("residues", layers, residues).items():
            same(np.stack(table[name][position]), values)


def test_parquet_is_read_by_polars_and_duckdb(job_with):
    job = job_with(*ALL)
    path, expected = job.fetch("e.parquet"), job.expected()
    frame = pl.read_parquet(path)
    assert frame["id"].to_list() == expected["ids"].tolist()
    assert frame.schema["mean"] == pl.Array(pl.Float32, DIM)
    same(frame["mean"].to_numpy(), expected["mean"])
    same(np.array(frame["residues"][4].to_list(), np.float32), job.residues(4))
    rows = duckdb.sql(f"select id, mean, bos from '{path}' where precision != 'none'").fetchall()
    kept = expected["precision"] != "none"
    assert [row[0] for row in rows] == expected["ids"][kept].tolist()
    same(np.array([row[1] for row in rows], np.float32), expected["mean"][kept])
    same(np.array([row[2] for row in rows], np.float32), expected["bos"][kept])


def test_parquet_says_what_it_comes_from_and_has_lists_of_a_fixed_size(job_with):
    job = job_with("mean", "per_residue", residue_dtype="float16")
    file = pq.ParquetFile(job.fetch("e.parquet"))
    attributes = json.loads(file.metadata.metadata[b"virnucpro_fleet"])
    assert (attributes["job"], attributes["rows_without_numbers"]) == (job.manifest.job, 1)
    assert str(file.schema_arrow.field("mean").type) == f"fixed_size_list<element: float>[{DIM}]"
    of_residues = file.schema_arrow.field("residues").type.value_type
    assert str(of_residues) == f"fixed_size_list<element: halffloat>[{DIM}]"


def test_small_batches_share_a_row_group_and_large_ones_are_not_waited_for(job_with, monkeypatch):
    job = job_with("mean")
    assert pq.ParquetFile(job.fetch("one.parquet")).num_row_groups == 1
    monkeypatch.setattr("producer.output.layouts.parquet.ROW_GROUP_BYTES", 5 * DIM * 4)
    file = pq.ParquetFile(job.fetch("several.parquet"))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [5, 7, 3]
    same(np.stack(file.read().to_pandas()["mean"]), job.expected()["mean"])


# --- NumPy --------------------------------------------------------------------------------------


@every_number_of_layers
def test_npz_has_the_arrays_of_the_hdf5_file(job_with, layers):
    job = job_with(*ALL, layers=layers)
    with np.load(job.fetch("e.npz"), allow_pickle=False) as found:
        arrays, expected = dict(found), job.expected()
    attributes = json.loads(str(arrays.pop("attributes")))
    assert (attributes["job"], attributes["rows_without_numbers"]) == (job.manifest.job, 1)
    assert set(arrays) == set(expected) - {"headers"}
    for name, values in arrays.items():
        if values.dtype.kind == "U":
            assert values.tolist() == expected[name].tolist()
        else:
            same(values, expected[name])


def test_an_id_that_would_make_all_others_too_long_is_refused(job_with, monkeypatch):
    monkeypatch.setattr("producer.output.layouts.npz.MOST_PADDED", 1000)
    job = job_with("mean")
    monkeypatch.setattr("producer.output.layouts.spool.Spool.bytes_of", lambda *_: 10)
    with pytest.raises(UserError, match=r"An id has 304 letters"):
        job.fetch("e.npz")
    assert not list(job.folder.iterdir())


@pytest.mark.parametrize("kind", ALL)
@every_number_of_layers
def test_npy_is_one_array_with_a_table_beside_it(job_with, kind, layers):
    job = job_with(*ALL, layers=layers)
    path, expected = job.fetch("e.npy", include=(kind,)), job.expected()
    same(np.load(path), expected["residues" if kind == "per_residue" else kind])
    table = pd.read_csv(path.with_name("e.ids.csv"), keep_default_na=False)
    check_table(table, expected)


# --- CSV, TSV -----------------------------------------------------------------------------------


@every_number_of_layers
@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables_give_the_very_numbers_back(job_with, suffix, separator, layers):
    job = job_with("mean", "bos", "max", "std", layers=layers)
    path, expected = job.fetch(f"e.{suffix}"), job.expected()
    table = pd.read_csv(path, sep=separator, keep_default_na=False, na_values={"mean_0": [""]})
    check_table(table, expected)
    numbers = pd.read_csv(path, sep=separator, float_precision="round_trip")
    frame = pl.read_csv(path, separator=separator)
    rows = duckdb.read_csv(str(path), sep=separator).df()
    for kind in ("mean", "bos", "max", "std"):
        for name, values in by_layer(kind, layers, expected[kind]).items():
            columns = [f"{name}_{number}" for number in range(DIM)]
            same(numbers[columns].to_numpy(np.float32), values)
            same(rows[columns].to_numpy(np.float32), values)
            same(frame.select(columns).to_numpy().astype(np.float32), values)
    assert frame["mean_0" if layers == (-1,) else "mean_2_0"].null_count() == 1


# --- safetensors --------------------------------------------------------------------------------


@every_number_of_layers
def test_safetensors_has_the_arrays_of_the_hdf5_file(job_with, layers):
    job = job_with(*ALL, layers=layers, residue_dtype="float16")
    path, expected = job.fetch("e.safetensors"), job.expected()
    arrays = safetensors.numpy.load_file(path)
    assert bytes(arrays.pop("ids")).decode().split("\n")[:-1] == expected.pop("ids").tolist()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    codes = {code: name for name, code in json.loads(metadata["precision_codes"]).items()}
    precision = [codes[code] for code in arrays.pop("precision").tolist()]
    assert precision == expected.pop("precision").tolist()
    assert set(arrays) == set(expected) - {"headers"}
    for name, values in arrays.items():
        same(values, expected[name])
    same(safetensors.torch.load_file(path)["mean"].numpy(), expected["mean"])
    attributes = json.loads(metadata["attributes"])
    assert (attributes["job"], attributes["rows_without_numbers"]) == (job.manifest.job, 1)


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", [("mean", "per_residue"), ()], ids=["with vectors", "alone"])
def test_arrays_of_scores_are_those_of_the_hdf5_file(job_with, vectors):
    job = job_with(*vectors, *SCORES)
    with np.load(job.fetch("e.npz"), allow_pickle=False) as found:
        in_npz = dict(found)
    in_safetensors = safetensors.numpy.load_file(job.fetch("e.safetensors"))
    expected = job.expected()
    for name in (*SCORES, "offsets", *(["mean", "residues"] if vectors else [])):
        same(in_npz[name], expected[name])
        same(in_safetensors[name], expected[name])


def test_parquet_has_scores_of_records_as_numbers_and_of_residues_as_lists(job_with):
    job = job_with("mean", *SCORES)
    table, expected = pd.read_parquet(job.fetch("e.parquet")), job.expected()
    for name in OF_RECORDS:
        same(table[name].to_numpy(), expected[name])
    for position in range(len(HEADERS)):
        here = slice(*expected["offsets"][position : position + 2])
        same(table["entropy"][position], expected["entropy"][here])
        same(np.stack(table["logits"][position]), expected["logits"][here])
    alone = pd.read_parquet(job.fetch("alone.parquet", include=("logits",)))
    assert "mean" not in alone
    assert len(alone) == len(HEADERS)


@pytest.mark.parametrize("include", [("mean", *OF_RECORDS), OF_RECORDS], ids=["both", "alone"])
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_tables_have_the_very_scores_of_records(job_with, include, dtype):
    job = job_with(*include)
    path, expected = job.fetch("e.csv", dtype=dtype), job.expected()
    check_table(pd.read_csv(path, keep_default_na=False), expected)
    table = pd.read_csv(path, float_precision="round_trip")
    for name in OF_RECORDS:
        same(table[name].to_numpy(np.float32), expected[name])
    assert table[OF_RECORDS[0]].isna().sum() == 1


def test_the_classes_of_records_have_a_column_each(job_with):
    job = job_with("mean", "class_logits", classes=3)
    expected = job.expected()["class_logits"]
    columns = [f"class_logits_{number}" for number in range(3)]
    table = pd.read_csv(job.fetch("e.tsv"), sep="\t", float_precision="round_trip")
    same(table[columns].to_numpy(np.float32), expected)
    same(np.stack(pd.read_parquet(job.fetch("e.parquet"))["class_logits"]), expected)
