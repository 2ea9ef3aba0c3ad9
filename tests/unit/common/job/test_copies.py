"""The copies of a batch are read as they were written, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import UserError
from common.job import sealed
from common.job.copies import checked_copies, copies_by_batch, read_copies
from common.job.copy_lines import Copy, decode_copies, encode_copies
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from tests.support.copies import store_job
from tests.support.jobs import manifest_of
from tests.support.stores import folder_store

BATCHES = [
    [Record(0, "a", "MKV"), Record(1, "b\ttab", "MKV"), Record(2, "", "AAA")],
    [Record(3, "d", "CCC")],
    [Record(4, "e", "MKV"), Record(6, "f é", "AAA"), Record(7, "g", "MKV"), Record(8, "h", "L")],
]
COPIES = [[Copy(1, 0, 3, "b\ttab")], [], [Copy(6, 2, 3, "f é"), Copy(7, 0, 3, "g")]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return folder_store(tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module")
def manifest(store):
    return store_job(store, BATCHES, OutputForm(max_residues=5))


@given(
    st.lists(
        st.builds(
            Copy,
            *[st.integers(0, 10**12)] * 3,
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n")),
        )
    )
)
def test_copies_are_read_as_they_were_written(copies):
    assert decode_copies(encode_copies(copies)) == copies


def test_each_batch_has_its_copies(store, manifest):
    assert [read_copies(store, manifest, index) for index in range(3)] == COPIES
    assert list(copies_by_batch(store, manifest)) == [(0, COPIES[0]), (2, COPIES[2])]
    assert [copy.id for copy in COPIES[2]] == ["f", "g"]
    assert sorted(key for key in store.keys(f"{manifest.job}/copies/")) == [
        f"{manifest.job}/copies/0000000.tsv",
        f"{manifest.job}/copies/0000002.tsv",
    ]
    assert [manifest.batch_of(row) for row in (0, 2, 3, 4, 8)] == [0, 0, 1, 2, 2]


def test_no_bit_of_an_object_changes_without_notice(store, manifest):
    data = bytearray(store.get(manifest.copies_key(2)))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="another checksum"):
            checked_copies(manifest, 2, bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_a_damaged_object_is_said_with_what_to_do(store, manifest):
    key = manifest.copies_key(0)
    intact = store.get(key)
    store.put(key, intact[1:])
    with pytest.raises(UserError, match=rf"{key} is damaged .*submit the input again"):
        read_copies(store, manifest, 0)
    store.put(key, intact)
    assert read_copies(store, manifest, 0) == COPIES[0]


def test_a_manifest_with_copies_is_read_as_it_was_written(store, manifest):
    assert sealed.parse(Manifest, sealed.dump(manifest)) == manifest
    assert manifest.report.records == 8
    assert manifest.computed == 5
    assert manifest.report.attributes() == {"records_identical": 3}


def test_a_manifest_without_copies_is_written_as_earlier_versions_wrote_it():
    manifest = manifest_of([3, 2])
    written = json.loads(sealed.dump(manifest))
    assert not {"batch_copies", "copies_crc32", "batch_rows"} & set(written)
    assert "identical" not in written["report"]
    assert sealed.parse(Manifest, sealed.dump(manifest)) == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"batch_copies": [1, 0, 1]},
        {"batch_copies": [1, 2]},
        {"batch_rows": [0, 3]},
        {"copies_crc32": "0" * 16},
        {"batch_records": [1, 1, 2]},
        {"batch_copies": []},
    ],
    ids=str,
)
def test_a_manifest_whose_numbers_do_not_agree_is_refused(manifest, change):
    with pytest.raises(ValidationError, match="do not agree"):
        Manifest.model_validate({**dict(manifest), **change})
