"""``fetch -o s3://…``: one object, complete or absent, which harms no other."""

import errno
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import h5py
import numpy as np
import pytest

from common.errors import UserError
from common.job.manifest import Manifest, write_manifest
from common.job.records import Record
from common.store import S3Store
from common.store.s3_object import S3Object
from producer.fleet import output_object
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.output import place_of
from producer.fleet.output_file import Target
from tests.integration.conftest import BUCKET
from tests.support.jobs import manifest_of
from tests.support.processes import clean_environment, run_producer
from tests.support.s3_proxy import Fault, S3Proxy, s3_proxy
from tests.support.shards import store_inputs, store_shard
from tests.support.stores import folder_store
from tests.support.swift import S3Server

#: The smallest part that S3 accepts, in bytes.
PART_BYTES = 5 * 2**20

MANIFEST = manifest_of([1]).model_copy(update={"input_fingerprint": "f"})


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(s3) as running:
        yield running


@pytest.fixture
def bucket(proxy, s3: S3Server, monkeypatch) -> str:
    """The URL of a folder in a bucket."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint_url)
    monkeypatch.setattr("common.store.s3.PART_BYTES", PART_BYTES)
    return f"s3://{BUCKET}/outputs-{uuid.uuid4().hex}"


def done_job(store, manifest: Manifest = MANIFEST) -> Job:
    """Return a finished job whose shards no worker made."""
    store_inputs(store, manifest, [Record(0, "a", "MK")])
    write_manifest(store, manifest)
    store_shard(store, manifest, 0)
    return Fleet(store=store.url).job(manifest.job)


@pytest.fixture
def job(bucket, tmp_path) -> Job:
    return done_job(folder_store(tmp_path / "store"))


@pytest.fixture
def other(job) -> Job:
    """Another job of the same store."""
    return done_job(job.fleet.store, MANIFEST.model_copy(update={"job": "other-0123"}))


class Objects:
    """The objects of the real server, without the proxy."""

    def __init__(self, s3: S3Server) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=s3.endpoint_url,
            aws_access_key_id=s3.access_key,
            aws_secret_access_key=s3.secret_key,
            region_name=s3.region,
        )

    def put(self, url: str, data: bytes) -> None:
        self.client.put_object(**place(url), Body=data)

    def content(self, url: str) -> bytes:
        return self.client.get_object(**place(url))["Body"].read()

    def etag(self, url: str) -> str | None:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=place(url)["Key"])
        return found["Contents"][0]["ETag"] if found["KeyCount"] else None

    def names(self, url: str) -> list[str]:
        prefix = place(f"{url}/")["Key"]
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"].removeprefix(prefix) for item in found.get("Contents", [])]

    def job(self, url: str) -> str:
        with h5py.File(io.BytesIO(self.content(url))) as file:
            return file.attrs["job"]

    def refusal(self, job: Job, url: str, **options: bool) -> str:
        """Return the message of a fetch that is refused, and changes nothing."""
        before = self.etag(url)
        with pytest.raises(UserError) as caught:
            job.fetch(url, **options)
        assert self.etag(url) == before
        return str(caught.value)


def place(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


@pytest.fixture(scope="module")
def objects(s3: S3Server) -> Objects:
    return Objects(s3)


@pytest.mark.parametrize("name", ["e.npz", "e.parquet", "e.safetensors", "e.h5ad", "u.h5", "e.csv"])
def test_an_object_of_each_layout_is_the_file_and_is_known_by_its_job(
    job, other, bucket, tmp_path, objects, name
):
    url, options = f"{bucket}/{name}", {"layout": "uniprot" if name == "u.h5" else None}
    job.fetch(url, **options)
    job.fetch(tmp_path / name, **options)
    assert len(objects.content(url)) == (tmp_path / name).stat().st_size
    assert "exists and " in objects.refusal(other, url, **options)
    if name != "e.csv":  # which does not say what it is of
        job.fetch(url, **options)
    other.fetch(url, overwrite=True, **options)


def test_the_object_has_what_a_file_would_have_and_nothing_is_left_beside_it(
    job, bucket, tmp_path, monkeypatch, objects
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    fetched = job.fetch(f"{bucket}/e.h5")
    assert (fetched.path, fetched.rows) == (f"{bucket}/e.h5", 1)
    job.fetch(tmp_path / "e.h5")
    assert objects.content(f"{bucket}/e.h5") == (tmp_path / "e.h5").read_bytes()
    assert objects.names(bucket) == ["e.h5"]
    assert list(temporary.iterdir()) == []


def test_an_object_of_the_same_job_is_replaced_and_any_other_only_if_asked(
    job, other, bucket, objects
):
    url = f"{bucket}/e.h5"
    for _ in range(2):
        job.fetch(url)
    assert f"exists and has the embeddings of job {job.name}" in objects.refusal(other, url)
    objects.put(f"{bucket}/notes.h5", b"notes")
    assert "exists and is another file" in objects.refusal(job, f"{bucket}/notes.h5")
    other.fetch(url, overwrite=True)
    assert objects.job(url) == other.name


def test_a_large_object_comes_in_parts_and_is_whole(bucket, objects, tmp_path):
    url, data = f"{bucket}/large.h5", np.random.default_rng(0).bytes(2 * PART_BYTES + 99)
    (tmp_path / "large").write_bytes(data)
    S3Object(url).write(tmp_path / "large", None)
    assert objects.content(url) == data
    assert objects.etag(url).strip('"').endswith("-3")


@pytest.mark.parametrize(
    ("name", "message"),
    [("/e.pt", "/e.h5, or"), ("/e.npy", "is several files"), ("/folder/", "name an object")],
)
def test_a_place_that_cannot_be_is_named_before_the_work(job, bucket, name, message, objects):
    assert message in objects.refusal(job, f"{bucket}{name}")


def test_the_store_and_the_input_are_never_replaced(bucket, s3, objects):
    store = S3Store(BUCKET, f"{bucket.rpartition('/')[2]}/store")
    store.check_writable()
    job = done_job(store, MANIFEST.model_copy(update={"input": f"{bucket}/in.h5"}))
    objects.put(f"{bucket}/in.h5", b">a\nMK\n")
    for url in (f"{store.url}/e.h5", f"{store.url}/{job.name}/output/0000000.fp16.h5"):
        assert "lies in the store" in objects.refusal(job, url, overwrite=True)
    assert "in.h5" in objects.refusal(job, f"{bucket}/in.h5", overwrite=True)
    job.fetch(f"{bucket}/store.h5")  # beside it


def while_uploading(monkeypatch, action: Callable[[], None]) -> None:
    """Have something done right before the upload begins, after the last check."""
    write = S3Object.write

    def late(self: S3Object, path: Path, expected: str | None) -> None:
        action()
        write(self, path, expected)

    monkeypatch.setattr(S3Object, "write", late)


def test_an_object_that_appears_during_the_upload_stays(job, bucket, monkeypatch, objects):
    url = f"{bucket}/e.h5"
    while_uploading(monkeypatch, lambda: objects.put(url, b"another's"))
    with pytest.raises(UserError, match="was written or deleted by another process meanwhile"):
        job.fetch(url)
    assert objects.content(url) == b"another's"


def test_an_object_that_changes_during_the_work_stays(job, bucket, monkeypatch, objects):
    url = f"{bucket}/e.h5"
    objects.put(url, b"before")
    target = output_object.OutputObject.target

    @contextmanager
    def slow(self) -> Iterator[Target]:
        with target(self) as opened:
            objects.put(url, b"another's")
            yield opened

    monkeypatch.setattr(output_object.OutputObject, "target", slow)
    with pytest.raises(UserError, match="was written by another process meanwhile"):
        job.fetch(url, overwrite=True)
    assert objects.content(url) == b"another's"


def test_an_object_is_replaced_on_the_condition_that_it_is_the_one_of_before(
    job, bucket, proxy, objects
):
    """This server refuses If-Match, and is asked without; others answer it."""
    url = f"{bucket}/e.h5"
    job.fetch(url)
    rule = proxy.fail(Fault.PRECONDITION_FAILED, "PUT", "e.h5", header="If-Match")
    before = objects.etag(url)
    with pytest.raises(UserError, match="was written or deleted by another process meanwhile"):
        job.fetch(url)
    assert rule.hits == 1
    assert objects.etag(url) == before


def test_a_write_whose_answer_is_lost_is_told_from_another_s(
    job, bucket, tmp_path, monkeypatch, objects
):
    """The client repeats it, and hears that the object exists: its own."""
    url = f"{bucket}/e.h5"
    upload = S3Store.upload_on_condition

    def twice(self, client, path, key, metadata=None) -> None:
        upload(self, client, path, key, metadata)
        upload(self, client, path, key, metadata)

    monkeypatch.setattr(S3Store, "upload_on_condition", twice)
    job.fetch(url)
    assert objects.job(url) == job.name


def test_a_failed_upload_leaves_the_earlier_object(job, bucket, proxy, objects):
    url = f"{bucket}/e.h5"
    job.fetch(url)
    before = objects.etag(url)
    proxy.fail(Fault.ACCESS_DENIED, "PUT", "e.h5")
    with pytest.raises(UserError, match="AccessDenied"):
        job.fetch(url)
    assert objects.etag(url) == before


def test_that_it_may_not_be_written_is_said_before_the_work(job, bucket, proxy):
    proxy.fail(Fault.ACCESS_DENIED, "POST", "?uploads")
    output = job.output_file(f"{bucket}/e.h5")
    with pytest.raises(UserError, match=r"cannot write e\.h5: .*AccessDenied"):
        output.check()


def test_without_room_the_message_says_where_and_how_much(job, bucket, monkeypatch, objects):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    message = objects.refusal(job, f"{bucket}/e.h5")
    assert "needs about" in message
    assert "10 bytes are free. Set TMPDIR to a folder with more room" in message


def test_a_limit_of_the_folder_counts_though_the_disk_has_room(job, bucket, monkeypatch, objects):
    monkeypatch.setenv("VIRNUCPRO_TMP_BYTES", "10")
    message = objects.refusal(job, f"{bucket}/e.h5")
    assert "where files may take 10 bytes (VIRNUCPRO_TMP_BYTES): give that folder" in message


def test_a_disk_that_fills_up_is_said_in_the_same_way(job, bucket, monkeypatch, objects):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("producer.output.layouts.columnar.create_embedding_file", full)
    assert "Set TMPDIR to a folder with more room" in objects.refusal(job, f"{bucket}/e.h5")


def test_without_a_folder_for_temporary_files_the_message_says_so(
    job, bucket, monkeypatch, objects
):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    assert "Set TMPDIR to a folder that can be written" in objects.refusal(job, f"{bucket}/e.h5")


def test_places_are_paths_and_urls(tmp_path):
    assert place_of("s3://b/k.h5") == "s3://b/k.h5"
    assert place_of(Path("s3://b/k.h5")) == "s3://b/k.h5"
    assert place_of(f"file://{tmp_path}/e.h5") == tmp_path / "e.h5"
    assert place_of("e.h5") == Path("e.h5")
    with pytest.raises(UserError, match="is a URL") as caught:
        place_of("https://user:secret@host/e.h5")
    assert "secret" not in str(caught.value)


def test_the_command_writes_an_object_and_says_so(job, bucket, s3, objects):
    environment = clean_environment(VIRNUCPRO_STORE=job.fleet.store.url, **s3.environment())
    done = run_producer("fetch", job.name, "-o", f"{bucket}/e.h5", environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"Wrote 1 embedding to {bucket}/e.h5." in done.stderr.replace("\n", " ")
    assert objects.job(f"{bucket}/e.h5") == job.name


@pytest.mark.slow
def test_a_local_run_writes_an_object(bucket, s3, tiny, tmp_path, objects):
    (tmp_path / "q.fasta").write_text(">a\nMKTAYIAK\n")
    done = run_producer(
        *("submit", "q.fasta", "--local", "--gpus=none", "--model", tiny, "-o", f"{bucket}/q.h5"),
        environment=clean_environment(**s3.environment()),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert objects.job(f"{bucket}/q.h5").startswith("q-")
    assert [path.name for path in tmp_path.iterdir()] == ["q.fasta"]
