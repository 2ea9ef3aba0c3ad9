"""The store as a bucket of a real S3 server: complete or absent objects, read in parts."""

import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from common.errors import UserError
from common.job.layout import shard_key
from common.job.manifest import write_manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from common.store import ObjectExistsError, ObjectNotFoundError, S3Store, StoreError
from common.store.ranges import BLOCK_BYTES
from producer.output.fetch import fetch
from producer.output.verify import verify
from producer.scheduling.restore import result_of_shard
from tests.conftest import ROOT
from tests.integration.conftest import BUCKET
from tests.support.jobs import manifest_of
from tests.support.processes import clean_environment
from tests.support.shards import store_inputs, store_shard
from tests.support.swift import S3Server

KEY = "job/output/0000000.fp16.h5"

#: The smallest part that S3 accepts, in bytes.
PART_BYTES = 5 * 2**20

SIZES = pytest.mark.parametrize("size", [100, PART_BYTES + 1], ids=["one_put", "parts"])


@pytest.fixture
def store(s3: S3Server, monkeypatch) -> S3Store:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("common.store.s3.PART_BYTES", PART_BYTES)
    store = S3Store(BUCKET, f"bucket-{uuid.uuid4().hex}")
    store.check_writable()
    return store


def write_new(store: S3Store, data: bytes) -> None:
    with store.create(KEY, replace=False) as path:
        path.write_bytes(data)


def etag(store: S3Store) -> str:
    return store.read_stream(KEY)["ETag"]


def unfinished(store: S3Store) -> list[str]:
    """Return the keys of multipart uploads that were neither completed nor aborted."""
    found = store.client.list_multipart_uploads(Bucket=BUCKET, Prefix=store.prefix)
    return [upload["Key"].removeprefix(store.prefix) for upload in found.get("Uploads", [])]


@SIZES
def test_an_object_that_is_there_stays_if_it_is_not_to_be_replaced(store, size):
    write_new(store, b"1" * size)
    before = etag(store)
    with pytest.raises(ObjectExistsError, match=f"{store.url} has {KEY} already"):
        write_new(store, b"2" * size)
    assert etag(store) == before
    assert store.get(KEY) == b"1" * size
    assert unfinished(store) == []


@SIZES
def test_an_object_may_be_replaced_on_purpose(store, size):
    for data in (b"1" * size, b"2" * size):
        with store.create(KEY) as path:
            path.write_bytes(data)
        assert store.get(KEY) == data


def test_writers_that_do_not_replace_leave_one_whole_object(store):
    def write(writer: int) -> bool:
        try:
            write_new(store, bytes([writer]) * 200_000)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(write, range(4)))
    data = store.get(KEY)
    assert data == data[:1] * 200_000
    with pytest.raises(ObjectExistsError):
        write_new(store, b"late")
    assert store.get(KEY) == data


def test_folders_are_the_names_directly_under_the_prefix(store):
    assert list(store.folders()) == []
    for key in ("b/manifest.json", "a/output/1", "a/output/2", "file"):
        store.put(key, b"")
    assert list(store.folders()) == ["a", "b"]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5, PART_BYTES + 1])
def test_parts_of_an_object_are_those_of_the_whole(store, size):
    data = np.random.default_rng(0).bytes(size)
    write_new(store, data)
    with store.open_ranges(KEY) as file:
        for start in (0, size - 10, size // 2, BLOCK_BYTES - 5, size):
            file.seek(max(start, 0))
            assert file.read(20) == data[max(start, 0) :][:20]


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(store):
    store.put(KEY, b"1" * 2 * BLOCK_BYTES)
    with store.open_ranges(KEY) as file:
        store.put(KEY, b"2" * 2 * BLOCK_BYTES)
        file.seek(BLOCK_BYTES)
        assert file.read(1) == b"1"
        file.seek(0)
        with pytest.raises(StoreError, match=f"cannot read {KEY}: it was replaced meanwhile"):
            file.read(1)


def test_what_is_not_there_cannot_be_read_in_parts(store):
    with pytest.raises(ObjectNotFoundError), store.open_ranges(KEY):
        pass


def test_a_shard_in_a_bucket_tells_what_it_is_in_one_request(store):
    """A file with per-residue vectors, which are nearly all of its bytes."""
    form = OutputForm(include=("mean", "per_residue"), max_residues=50)
    manifest = manifest_of([300], form=form)
    store_inputs(store, manifest, [Record(row, f"id{row}", "MKVLGASTLL") for row in range(300)])
    store_shard(store, manifest, 0, dim=64)
    key = shard_key(manifest.job, 0, Rung.FP16)
    reads: list[str] = []
    store.client.meta.events.register(
        "provide-client-params.s3.GetObject",
        lambda params, **_: reads.append(params["Key"].removeprefix(store.prefix)),
    )
    result, _ = result_of_shard(store, manifest, 0, Rung.FP16, key, None)
    assert (result.records, result.unstable) == (300, ())
    assert reads == [key]
    store_shard(store, manifest, 0, rows=range(299), dim=64)
    result, _ = result_of_shard(store, manifest, 0, Rung.FP16, key, None)
    assert (result.records, [bad.row for bad in result.unstable]) == (299, [299])


def test_a_bit_that_changed_in_a_bucket_is_named(store, tmp_path):
    manifest = manifest_of([2, 2])
    records = [Record(row, f"id{row}", "MKVLGASTLL") for row in range(4)]
    manifest = store_inputs(store, manifest, records)
    write_manifest(store, manifest)
    for index in (0, 1):
        store_shard(store, manifest, index)
    assert verify(store, manifest) == []
    changed = [shard_key(manifest.job, 0, Rung.FP16), manifest.input_key(1)]
    for key in changed:
        data = bytearray(store.get(key))
        data[len(data) // 2] ^= 1
        store.put(key, bytes(data))
    problems = verify(store, manifest)
    assert [key in text for key, text in zip(changed, problems, strict=True)] == [True, True]
    with pytest.raises(UserError, match=f"{changed[0]} cannot be read "):
        fetch(store, manifest, tmp_path / "e.h5")
    assert not list(tmp_path.iterdir())


# --- writers that are killed ----------------------------------------------------------------------

#: A script that writes objects without end, each of one letter, and logs them.
WRITE_ON = """
import itertools, sys
from common.store import open_store, s3
s3.PART_BYTES = int(sys.argv[2])
store = open_store(sys.argv[1])
for number in itertools.count():
    print("begins", flush=True)
    with store.create(f"job/output/{number:07d}.fp16.h5", replace=False) as path:
        path.write_bytes(bytes([number % 256]) * int(sys.argv[3]))
"""

#: A script that dies after the last part, before the upload is completed.
DIE_BEFORE_THE_END = """
import os, signal, sys
from common.store import open_store, s3
s3.PART_BYTES = int(sys.argv[2])
store = open_store(sys.argv[1])
for client in (store.client, store._exclusive_client):
    client.meta.events.register(
        "before-call.s3.CompleteMultipartUpload",
        lambda **_: os.kill(os.getpid(), signal.SIGKILL),
    )
with store.create(sys.argv[4], replace=False) as path:
    path.write_bytes(bytes(int(sys.argv[3])))
"""


def writer(script: str, store: S3Store, s3: S3Server, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, store.url, *map(str, arguments)]
    environment = clean_environment(**s3.environment())
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def test_a_writer_that_is_killed_leaves_only_whole_objects(store, s3):
    size = 4 * 2**20
    with writer(WRITE_ON, store, s3, PART_BYTES, size) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    keys = list(store.keys(""))
    assert len(keys) >= 2
    for number, key in enumerate(keys):
        assert store.get(key) == bytes([number]) * size


def test_an_upload_in_parts_that_was_not_completed_is_no_object(store, s3):
    size = 2 * PART_BYTES + 1
    with writer(DIE_BEFORE_THE_END, store, s3, PART_BYTES, size, KEY) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert unfinished(store) == [KEY]
    assert list(store.keys("")) == []
    with pytest.raises(ObjectNotFoundError):
        store.get(KEY)
    write_new(store, b"whole")
    assert store.get(KEY) == b"whole"
    assert list(store.keys("")) == [KEY]
