"""Shards: every number and every text comes back from HDF5 as it went in."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.embeddings.arrays import Embeddings
from common.embeddings.reader import open_embedding_file, read_embeddings
from common.embeddings.sink import Sink
from common.embeddings.writer import create_embedding_file
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from tests.conftest import ROOT
from tests.support.shards import embeddings_of, write_shard

DIM = 4
MAX_RESIDUES = 6
MEAN = OutputForm(max_residues=MAX_RESIDUES)
EVERYTHING = OutputForm(include=("mean", "bos", "per_residue"), max_residues=MAX_RESIDUES)

forms = st.builds(
    OutputForm,
    include=st.sampled_from(
        [
            *(("mean",), ("bos",), ("per_residue",), ("bos", "mean"), ("logits",)),
            ("mean", "bos", "per_residue"),
            ("contacts", "per_residue", "mean"),
            ("max", "per_residue", "entropy", "pseudo_perplexity_unmasked", "std"),
        ]
    ),
    layers=st.sampled_from([(-1,), (0,), (-1, 0), (1, 2, 3)]),
    residue_dtype=st.sampled_from(["float16", "float32"]),
    max_residues=st.just(MAX_RESIDUES),
) | st.builds(
    OutputForm,
    include=st.sampled_from([("mean",), ("mean", "bos"), ("pseudo_perplexity_unmasked",)]),
    max_residues=st.just(MAX_RESIDUES),
    overlap=st.integers(0, MAX_RESIDUES - 1),
)
#: A FASTA header has no line end, and the reader lets no NUL pass.
headers = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
proteins = st.text("MKV", min_size=1, max_size=2 * MAX_RESIDUES)
records = st.builds(Record, st.integers(0, 2**63 - 1), headers, proteins)


def read(path: Path, form: OutputForm) -> Embeddings:
    with open_embedding_file(path) as file:
        return read_embeddings(file, form, DIM)


def assert_same(found: Embeddings, expected: Embeddings) -> None:
    for name in (field.name for field in fields(Embeddings) if field.compare):
        one, other = getattr(found, name), getattr(expected, name)
        if name in ("pooled", "scores"):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in other)
        elif isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        else:
            assert one == other


@given(forms, st.lists(records, max_size=20), st.sampled_from(Rung))
def test_rows_come_back_as_they_were(tmp_path_factory, form, records, rung):
    embeddings = embeddings_of(records, form, DIM, precision=rung)
    path = write_shard(tmp_path_factory.getbasetemp() / "shard.h5", form, DIM, embeddings)
    assert_same(read(path, form), embeddings)


@given(st.lists(st.lists(records, max_size=5), min_size=1, max_size=5))
def test_parts_that_are_written_follow_each_other(tmp_path_factory, lists):
    parts = [embeddings_of(records, EVERYTHING, DIM) for records in lists]
    path = write_shard(tmp_path_factory.getbasetemp() / "parts.h5", EVERYTHING, DIM, *parts)
    found = read(path, EVERYTHING)
    assert found.headers == [record.header for records in lists for record in records]
    assert np.array_equal(found.pooled["bos"], np.concatenate([p.pooled["bos"] for p in parts]))
    assert np.array_equal(found.residues, np.concatenate([part.residues for part in parts]))


def test_offsets_say_where_each_record_has_its_residues(tmp_path):
    records = [Record(0, "a", "MKV"), Record(1, "b", "M" * 50), Record(2, "c", "M")]
    path = write_shard(
        tmp_path / "shard.h5", EVERYTHING, DIM, embeddings_of(records, EVERYTHING, DIM)
    )
    with h5py.File(path) as file:
        assert file["offsets"][:].tolist() == [0, 3, 3 + MAX_RESIDUES, 4 + MAX_RESIDUES]
        assert file["lengths"][:].tolist() == [3, MAX_RESIDUES, 1]
        assert file["input_lengths"][:].tolist() == [3, 50, 1]


def test_the_length_of_a_record_in_windows_is_its_whole_length(tmp_path):
    form = OutputForm(max_residues=MAX_RESIDUES, overlap=2)
    embeddings = embeddings_of([Record(0, "a", "ACGT" * 10)], form, DIM)
    path = write_shard(tmp_path / "shard.h5", form, DIM, embeddings)
    found = read(path, form)
    assert found.lengths.tolist() == found.input_lengths.tolist() == [40]


@pytest.mark.parametrize("layers", [(-1,), (-1, 6)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_file_has_the_datasets_that_the_form_asks_for(tmp_path, layers, dtype):
    form = OutputForm(
        include=("bos", "per_residue"), layers=layers, residue_dtype=dtype, max_residues=6
    )
    records = [Record(0, "a", "MKV"), Record(1, "b", "MK")]
    path = write_shard(tmp_path / "shard.h5", form, DIM, embeddings_of(records, form, DIM))
    width = (DIM,) if len(layers) == 1 else (len(layers), DIM)
    with h5py.File(path) as file:
        assert set(file) == {
            *("ids", "headers", "rows", "lengths", "input_lengths", "precision"),
            *("bos", "residues", "offsets"),
        }
        assert (file["bos"].shape, file["bos"].dtype) == ((2, *width), np.float32)
        assert (file["residues"].shape, file["residues"].dtype) == ((5, *width), np.dtype(dtype))


def test_a_file_has_no_times_so_that_equal_rows_are_equal_files(tmp_path):
    form = OutputForm(include=("mean", "per_residue"), max_residues=6)
    embeddings = embeddings_of([Record(0, "a", "MKV")], form, DIM)
    with h5py.File(write_shard(tmp_path / "shard.h5", form, DIM, embeddings)) as file:
        timed = [name for name in file if h5py.h5g.get_objinfo(file[name].id).mtime]
    assert timed == []


def test_precision_is_an_enumeration_whose_names_any_reader_sees(tmp_path):
    path = write_shard(tmp_path / "shard.h5", MEAN, DIM)
    with h5py.File(path) as file:
        names = h5py.check_enum_dtype(file["precision"].dtype)
    assert names == {"none": 0, "fp16": 1, "bf16": 2, "selective_fp32": 3, "fp32": 4}
    assert set(names) == {"none", *Rung}


@pytest.mark.parametrize("header", ["i" * 10_240, "protéine", "中文 x", "🧬", "a/b c", ""])
def test_ids_of_any_kind_are_utf8_strings(tmp_path, header):
    record = Record(0, header, "MK")
    path = write_shard(tmp_path / "shard.h5", MEAN, DIM, embeddings_of([record], MEAN, DIM))
    with h5py.File(path) as file:
        for name, text in (("headers", header), ("ids", record.id)):
            assert h5py.check_string_dtype(file[name].dtype).encoding == "utf-8"
            assert file[name][0] == text.encode()


def test_a_shard_without_rows_can_be_read_too(tmp_path):
    """As a rung leaves it at which no row of a batch was finite."""
    path = write_shard(tmp_path / "shard.h5", EVERYTHING, DIM, embeddings_of([], EVERYTHING, DIM))
    found = read(path, EVERYTHING)
    assert len(found) == 0
    assert (found.pooled["mean"].shape, found.residues.shape) == ((0, DIM), (0, DIM))


def test_attributes_stand_in_the_file(tmp_path):
    path = write_shard(tmp_path / "shard.h5", MEAN, DIM, weights="abc", layers=[-1, 6])
    with open_embedding_file(path) as file:
        assert file.attrs["weights"] == "abc"
        assert file.attrs["layers"].tolist() == [-1, 6]


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file_is_an_error(tmp_path, keep):
    records = [Record(row, "a", "MKV") for row in range(100)]
    path = write_shard(
        tmp_path / "shard.h5", EVERYTHING, DIM, embeddings_of(records, EVERYTHING, DIM)
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(OSError, match="file"):
        read(path, EVERYTHING)


@pytest.mark.parametrize("change", [lambda r: r[:, :2], lambda r: np.concatenate((r, r[:1]))])
def test_residues_that_do_not_fit_their_place_are_refused(tmp_path, change):
    """They go into the file past HDF5, which would have refused them."""
    part = embeddings_of([Record(0, "a", "MKV")], EVERYTHING, DIM)
    wrong = replace(part, residues=change(part.residues))
    with (
        pytest.raises(ValueError, match="do not fit"),
        create_embedding_file(
            tmp_path / "shard.h5",
            form=EVERYTHING,
            records=1,
            residues=3,
            dim=DIM,
            attributes={},
        ) as writer,
    ):
        writer.write(wrong)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_shard(tmp_path / "none" / "shard.h5", MEAN, DIM)


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.support.shards import write_shard
from tests.unit.common.embeddings.test_writer import DIM, MEAN
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    write_shard(Path(sys.argv[1]), MEAN, DIM)
except OSError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("room", [0, 500, 1000, 2000])
def test_a_disk_that_fills_up_is_an_error_and_not_the_end_of_the_process(tmp_path, room):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "shard.h5"), str(room)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stderr.startswith("refused: ")
    assert "Traceback" not in done.stderr


def test_what_is_not_in_the_file_is_zeros_for_hdf5_and_not_what_memory_held(tmp_path):
    """It would take that for addresses: the end of the process, on a disk that filled up."""
    memory = bytearray(b"anything")
    with Sink(tmp_path / "shard.h5", "w+b") as sink:
        sink.write(b"abc")
        sink.seek(0)
        assert sink.readinto(memory) == 8
    assert memory == b"abc" + bytes(5)
