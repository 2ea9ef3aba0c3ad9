"""The seal of a shard: no bit changes and no byte is lost without notice."""

import struct
from io import BufferedReader, BytesIO

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crc import crc32
from common.embeddings.checksums import DamagedError
from common.embeddings.reader import open_embedding_file, read_embeddings
from common.embeddings.seal import MAGIC, Label, prove, read_trailer
from common.job.records import Record
from common.rungs import Rung
from tests.support.shards import embeddings_of, write_shard
from tests.unit.common.embeddings.test_writer import DIM, EVERYTHING, assert_same

RECORDS = [Record(row, "a", "MKV") for row in range(2)]
LABEL = Label(
    job="job-0123456789ab",
    batch=7,
    rung=Rung.FP16,
    created=1795727443.8753078,
    precision=Rung.FP32,
    tokens=10,
    records=2,
    weights="w",
)


def opened(data: bytes) -> BufferedReader:
    return BufferedReader(BytesIO(data))


@pytest.fixture
def shard(tmp_path) -> tuple[bytes, bytes]:
    """A shard as an earlier version writes it, and sealed."""
    embeddings = embeddings_of(RECORDS, EVERYTHING, DIM)
    before = write_shard(tmp_path / "before.h5", EVERYTHING, DIM, embeddings).read_bytes()
    sealed = write_shard(tmp_path / "sealed.h5", EVERYTHING, DIM, embeddings, label=LABEL)
    return before, sealed.read_bytes()


def test_a_sealed_shard_is_whole_and_says_what_it_is(shard):
    assert prove(opened(shard[1])) == LABEL
    assert read_trailer(opened(shard[1])).label == LABEL
    assert LABEL.key == "job-0123456789ab/output/0000007.fp16.h5"


def test_every_bit_of_a_shard_is_sealed(shard):
    data = bytearray(shard[1])
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            prove(opened(data))
        data[bit // 8] ^= 1 << bit % 8


def test_every_byte_of_a_shard_is_sealed(shard):
    """What is left if the trailer alone is lost is what an earlier version would have written."""
    before, data = shard
    for length in range(len(data)):
        if length == len(before):
            assert prove(opened(data[:length])) is None
        else:
            with pytest.raises(DamagedError):
                prove(opened(data[:length]))
    with pytest.raises(DamagedError):
        prove(opened(data + b"\0"))


def test_what_is_cut_from_a_shard_of_an_earlier_version_is_missed(shard):
    before, _ = shard
    assert prove(opened(before)) is None
    for length in range(len(before)):
        with pytest.raises(DamagedError, match="it is cut short, or its end has changed"):
            prove(opened(before[:length]))


@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_the_end_of_an_hdf5_file_of_any_version_is_found(tmp_path, version):
    with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
        file["a"] = [1, 2, 3]
    data = (tmp_path / "a.h5").read_bytes()
    assert read_trailer(opened(data)) is None
    with pytest.raises(DamagedError):
        read_trailer(opened(data + b"0"))


@given(data=st.binary(max_size=100), ending=st.binary(max_size=30))
def test_what_is_no_shard_is_refused_whatever_its_end_says(data, ending):
    checked = data + struct.pack("<II", 0, len(data))
    valid_but_empty = checked + struct.pack("<I", crc32(checked)) + MAGIC
    for text in (data, data + ending, ending + MAGIC, valid_but_empty):
        with pytest.raises((DamagedError, ValueError)):
            prove(opened(text))


def test_hdf5_ignores_the_seal(tmp_path):
    path = tmp_path / "shard.h5"
    embeddings = embeddings_of(RECORDS, EVERYTHING, DIM)
    write_shard(path, EVERYTHING, DIM, embeddings, label=LABEL)
    with open_embedding_file(path) as file:
        assert_same(read_embeddings(file, EVERYTHING, DIM), embeddings)


def test_fields_of_a_newer_version_are_ignored():
    text = LABEL.model_dump_json()[:-1] + ',"newer":1}'
    checked = text.encode() + struct.pack("<II", crc32(b"body"), len(text))
    data = b"body" + checked + struct.pack("<I", crc32(checked)) + MAGIC
    assert prove(opened(data)) == LABEL


def test_a_label_without_who_computed_the_shard_is_as_in_earlier_versions(shard):
    assert b"computed" not in shard[1]
    assert read_trailer(opened(shard[1])).label.computed is None
