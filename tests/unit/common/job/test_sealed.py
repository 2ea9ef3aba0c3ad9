"""Sealed objects: no bit of a manifest, a quarantine or a closed.json changes without notice."""

import json

import pytest

from common.crc import crc32
from common.errors import UserError
from common.job import sealed
from common.job.layout import manifest_key, quarantine_key
from common.job.manifest import Manifest, read_manifest, write_manifest
from common.job.quarantine import Quarantine, add_to_quarantine, read_quarantine
from common.store import FileStore
from common.wire.messages import Instability
from tests.support.jobs import manifest_of
from tests.support.stores import folder_store

MANIFEST = manifest_of([3, 1, 2])
ROW = Instability(row=4, id="a", length=3)


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_bit_of_a_manifest_changes_what_is_read(store):
    write_manifest(store, MANIFEST)
    key = manifest_key(MANIFEST.job)
    data = store.get(key)
    refused = []
    for bit in range(8 * len(data)):
        store.put(key, flipped(data, bit))
        try:
            assert read_manifest(store, MANIFEST.job) == MANIFEST
        except UserError as error:
            refused.append(str(error))
    assert {text.partition(" is ")[0] for text in refused} == {f"{store.url}/{key}"}
    assert len(refused) > 8 * (len(data) - sealed.SEAL_BYTES)


@pytest.mark.parametrize("digit", [b"3", b"9"])
def test_a_changed_digit_of_the_quarantine_is_an_error_that_names_it(store, digit):
    add_to_quarantine(store, Quarantine(job="job", batch=0, rows=(ROW,)))
    key = quarantine_key("job", 0)
    data = store.get(key)
    store.put(key, data.replace(b'"row": 4', b'"row": ' + digit))
    with pytest.raises(UserError, match=f"{key} is damaged: delete it"):
        read_quarantine(store, "job", 0)
    store.put(key, data)
    assert read_quarantine(store, "job", 0) == (ROW,)


def test_an_object_of_an_earlier_version_has_no_seal():
    assert sealed.parse(Manifest, MANIFEST.model_dump_json(indent=1).encode()) == MANIFEST


def test_an_earlier_version_ignores_the_seal():
    assert Manifest.model_validate_json(sealed.dump(MANIFEST)) == MANIFEST
    assert list(json.loads(sealed.dump(MANIFEST)))[-1] == "crc32"


def test_fields_of_a_newer_version_belong_to_what_is_sealed():
    text = MANIFEST.model_dump_json(indent=1).removesuffix("\n}") + ',\n "newer": {"a": [1, 2]}'
    data = f'{text},\n "crc32": "{crc32(text.encode()):08x}"\n}}'.encode()
    assert sealed.parse(Manifest, data) == MANIFEST
    with pytest.raises(ValueError, match="another checksum"):
        sealed.parse(Manifest, data.replace(b"[1, 2]", b"[1, 3]"))


def test_a_folder_under_another_name_is_told_so(store):
    write_manifest(store, MANIFEST)
    store.put(manifest_key("copy"), store.get(manifest_key(MANIFEST.job)))
    with pytest.raises(UserError) as caught:
        read_manifest(store, "copy")
    assert str(caught.value) == (
        f"{store.url}/copy/manifest.json is of job {MANIFEST.job}: a job's folder cannot be copied "
        f"under another name. Rename it to {MANIFEST.job}, or delete it."
    )
