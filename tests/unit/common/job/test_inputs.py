"""Input objects are read with their checksums, or as far as an earlier version can be checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.job.inputs import decode_input, read_input
from common.job.layout import input_key
from common.job.records import Record, records_of
from common.store import FileStore
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs
from tests.support.stores import folder_store

RECORDS = [Record(row, f"id{row} words", "MKVLGASTLL") for row in range(6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FileStore:
    return folder_store(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def manifest(store):
    return store_inputs(store, manifest_of([4, 2]), RECORDS)


def test_each_batch_has_its_records(store, manifest):
    assert [read_input(store, manifest, index) for index in (0, 1)] == [RECORDS[:4], RECORDS[4:]]


@pytest.mark.parametrize("index", [0, 1])
def test_no_bit_of_an_input_object_changes_without_notice(store, manifest, index):
    data = bytearray(store.get(input_key(manifest.job, index)))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="another checksum"):
            decode_input(manifest, index, bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@given(data=st.data())
def test_records_of_an_earlier_version_are_as_many_in_order_and_of_the_alphabet(
    data, store, manifest
):
    changed = bytearray(store.get(input_key(manifest.job, 0)))
    for place in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=3)):
        changed[place] = data.draw(st.integers(0, 255))
    earlier = manifest.model_copy(update={"input_crc32": ""})
    try:
        records = records_of(decode_input(earlier, 0, bytes(changed)))
    except ValueError:
        return
    assert len(records) == 4
    assert [record.row for record in records] == sorted({record.row for record in records})
    assert all(set(record.residues) <= set("LAGVSERTIDPKQNFYMHWCXBUZO.-") for record in records)


def test_the_object_of_another_batch_is_refused(store, manifest):
    other = store.get(input_key(manifest.job, 1))
    store.put("copy/input/0000000.fasta", other)
    with pytest.raises(UserError, match="another checksum than when it was staged"):
        read_input(store, manifest.model_copy(update={"job": "copy"}), 0)
