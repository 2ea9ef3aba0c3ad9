"""Stores that are almost S3: each kind of them works, is done without, or is named in a sentence.

A proxy in front of a real S3 server answers as these do.
"""

import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from common.errors import UserError
from common.job.layout import output_prefix
from common.job.manifest import find_job
from common.job.records import Record
from common.store import ObjectExistsError, ObjectNotFoundError, S3Store, StoreError
from common.store.base import MARKER
from common.store.ranges import BLOCK_BYTES
from producer.output.fetch import fetch
from tests.integration.conftest import BUCKET
from tests.support.jobs import manifest_of
from tests.support.s3_proxy import Fault, S3Proxy, s3_proxy
from tests.support.shards import store_inputs, store_shard
from tests.support.swift import S3Server

KEY = "job/output/0000000.fp16.h5"

#: The smallest part that S3 accepts, in bytes, and an object of several parts.
PART_BYTES = 5 * 2**20
LARGE = np.random.default_rng(0).bytes(2 * PART_BYTES + 12_345)

REFUSALS = pytest.mark.parametrize(
    "refusal",
    [Fault.MISSING_MD5, Fault.NOT_IMPLEMENTED, Fault.INVALID_ARGUMENT],
    ids=lambda fault: fault.name,
)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(s3) as running:
        yield running


@pytest.fixture
def opened(proxy, s3, monkeypatch):
    """Return a function that opens a store at the proxy."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint_url)
    monkeypatch.setattr("common.store.s3.PART_BYTES", PART_BYTES)
    root = f"almost-{uuid.uuid4().hex}"
    return lambda prefix="": S3Store(BUCKET, f"{root}/{prefix}".rstrip("/"))


@pytest.fixture
def store(opened) -> S3Store:
    store = opened()
    store.check_writable()
    return store


def create(store: S3Store, data: bytes, *, replace: bool = False) -> None:
    with store.create(KEY, replace=replace) as path:
        path.write_bytes(data)


# --- deletions ------------------------------------------------------------------------------------


@REFUSALS
def test_objects_are_deleted_one_by_one_where_many_cannot_be(store, proxy, refusal):
    for number in range(5):
        store.put(f"job/input/{number}", b"data")
    rule = proxy.fail(refusal, "POST", "?delete")
    store.delete("job/")
    assert list(store.keys("")) == []
    for number in range(3):
        store.put(f"job/input/{number}", b"data")
    store.delete("job/")
    assert list(store.keys("")) == []
    assert rule.hits == 1


def test_many_keys_are_deleted_in_few_requests_and_no_others(store, monkeypatch):
    monkeypatch.setattr("common.store.bucket.DELETED_TOGETHER", 4)
    keys = [f"job/input/{number}" for number in range(10)]
    for key in (*keys, "job/input/10"):
        store.put(key, b"data")
    checks: list[int] = []
    store.delete_keys([*keys, "job/none"], lambda: checks.append(len(list(store.keys("")))))
    assert checks == [11, 7, 3]
    assert list(store.keys("")) == ["job/input/10"]


def test_an_object_that_cannot_be_deleted_with_others_is_an_error(store, proxy, monkeypatch):
    for number in range(3):
        store.put(f"job/input/{number}", b"data")
    answer = {"Errors": [{"Key": f"{store.prefix}job/input/1", "Code": "AccessDenied"}]}
    monkeypatch.setattr(store.client, "delete_objects", lambda **_: answer)
    proxy.fail(Fault.ACCESS_DENIED, "DELETE", "job/input/1")
    with pytest.raises(StoreError, match=r"cannot delete job/: .*AccessDenied"):
        store.delete("job/")


def test_checking_that_a_store_can_be_written_leaves_nothing(store):
    store.check_writable()
    assert list(store.keys("")) == []
    found = store.client.list_multipart_uploads(Bucket=BUCKET, Prefix=store.prefix)
    assert not found.get("Uploads")


def test_checking_makes_no_object_but_the_marker_at_any_time(opened, proxy):
    """An interruption could leave it behind."""
    store = opened("new")
    writes = proxy.fail(Fault.ACCESS_DENIED, "PUT", "write-test")
    store.check_writable()
    assert writes.hits == 0
    made = store.client.list_objects_v2(Bucket=BUCKET, Prefix=store.prefix)["Contents"]
    assert [item["Key"] for item in made] == [store.prefix + MARKER]


def test_a_store_that_cannot_be_written_is_found_out(store, proxy):
    proxy.fail(Fault.ACCESS_DENIED, "POST", "?uploads")
    with pytest.raises(StoreError, match=r"cannot write to it: .*AccessDenied.* bucket's policy"):
        store.check_writable()


# --- writes ---------------------------------------------------------------------------------------


@REFUSALS
@pytest.mark.parametrize("data", [b"1" * 100, LARGE], ids=["one_put", "parts"])
def test_conditional_writes_are_done_without_where_they_are_refused(store, proxy, refusal, data):
    rules = [proxy.fail(refusal, method, KEY, header="If-None-Match") for method in ("PUT", "POST")]
    create(store, data)
    create(store, data[::-1])
    assert store.get(KEY) == data[::-1]
    assert sum(rule.hits for rule in rules) == 1


def test_where_conditions_are_ignored_an_object_is_replaced(store, proxy):
    proxy.fail(Fault.IGNORED, "PUT", KEY, header="If-None-Match")
    create(store, b"first")
    create(store, b"second")
    assert store.get(KEY) == b"second"


def test_a_refusal_for_another_reason_does_not_end_conditional_writes(store, proxy):
    create(store, b"first")
    proxy.fail(Fault.INVALID_ARGUMENT, "PUT", KEY)
    with pytest.raises(StoreError, match="InvalidArgument"):
        create(store, b"second")
    proxy.heal()
    with pytest.raises(ObjectExistsError):
        create(store, b"third")


@REFUSALS
def test_a_large_object_is_written_whole_where_there_are_no_parts(store, proxy, refusal):
    rule = proxy.fail(refusal, "POST", "?uploads")
    store.check_writable()
    create(store, LARGE)
    assert store.get(KEY) == LARGE
    assert rule.hits == 1


def test_a_write_without_parts_is_conditional_too(store, proxy):
    proxy.fail(Fault.NOT_IMPLEMENTED, "POST", "?uploads")
    create(store, LARGE)
    with pytest.raises(ObjectExistsError):
        create(store, LARGE[::-1])
    assert store.get(KEY) == LARGE


@REFUSALS
def test_a_server_that_does_not_know_new_checksums_is_named_with_what_to_set(
    opened, proxy, refusal, monkeypatch
):
    proxy.fail(refusal, "PUT", KEY, header="x-amz-checksum-crc32")
    with pytest.raises(StoreError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
        opened().put(KEY, b"data")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    store = opened()
    store.put(KEY, b"data")
    assert store.get(KEY) == b"data"


# --- reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 3 * BLOCK_BYTES + 5, len(LARGE)])
def test_an_object_is_read_whole_where_there_are_no_ranges(store, proxy, size):
    create(store, LARGE[:size])
    proxy.fail(Fault.IGNORED, "GET", KEY, header="Range")
    with store.open_ranges(KEY) as file:
        for start in (0, max(size - 10, 0), size // 2):
            file.seek(start)
            assert file.read(20) == LARGE[:size][start:][:20]
    for _ in range(2):
        with store.open(KEY) as path:
            assert path.read_bytes() == LARGE[:size]


def test_an_object_that_is_replaced_while_it_is_downloaded_is_an_error_of_the_store(store):
    create(store, LARGE)
    store.client.meta.events.register_first(
        "before-call.s3.GetObject", lambda params, **_: spoil_etag(params["headers"])
    )
    with pytest.raises(StoreError, match=f"cannot read {KEY}"), store.open(KEY):
        pass


def spoil_etag(headers: dict[str, str]) -> None:
    """Ask for another version of the object than there is."""
    if "If-Match" in headers:
        headers["If-Match"] = '"another"'


# --- listings -------------------------------------------------------------------------------------


def test_a_listing_that_lags_behind_hides_no_object_that_is_read_by_name(store, proxy):
    assert list(store.keys("job/")) == []
    proxy.fail(Fault.STALE, "GET", "list-type=2")
    assert list(store.keys("job/")) == []
    store.put(KEY, b"data")
    assert list(store.keys("job/")) == []
    assert store.get(KEY) == b"data"
    proxy.heal()
    assert list(store.keys("job/")) == [KEY]


def test_no_file_is_fetched_without_the_shards_that_a_listing_hides(store, proxy, tmp_path):
    manifest = manifest_of([3, 3])
    store_inputs(store, manifest, [Record(row, f"id{row}", "MKVLG") for row in range(6)])
    store_shard(store, manifest, 0, rows=range(3), dim=8)
    proxy.fail(Fault.STALE, "GET", "list-type=2")
    list(store.keys(output_prefix(manifest.job)))
    store_shard(store, manifest, 1, rows=range(3, 6), dim=8)
    with pytest.raises(UserError, match=r"1 of 2 batches of .* have no output"):
        fetch(store, manifest, tmp_path / "e.h5")
    assert not list(tmp_path.iterdir())
    proxy.heal()
    assert fetch(store, manifest, tmp_path / "e.h5").rows == 6


def test_deleting_what_a_listing_still_shows_is_no_error(store, proxy):
    store.put(KEY, b"data")
    proxy.fail(Fault.STALE, "GET", "list-type=2")
    store.delete("job/")
    store.delete("job/")
    assert list(store.keys("job/")) == [KEY]
    with pytest.raises(ObjectNotFoundError):
        store.get(KEY)


def test_a_listing_that_does_not_go_on_is_an_error_and_not_the_whole(store, proxy, monkeypatch):
    for number in range(3):
        store.put(f"job/input/{number}", b"")
    store.client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2",
        lambda params, **_: params.update(MaxKeys=2),
    )
    assert len(list(store.keys("job/"))) == 3
    proxy.fail(Fault.CUT, "GET", "list-type=2")
    for action in (lambda: list(store.keys("job/")), lambda: store.delete("job/")):
        with pytest.raises(StoreError, match="does not say how a long listing goes on"):
            action()


def test_a_folder_that_a_console_made_is_no_object(store):
    for key in ("", "job/", "job/output/"):
        store.client.put_object(Bucket=BUCKET, Key=store.prefix + key)
    store.put(KEY, b"data")
    assert list(store.keys("")) == [KEY]
    assert list(store.folders()) == ["job"]
    store.delete("job/")
    left = store.client.list_objects_v2(Bucket=BUCKET, Prefix=store.prefix)
    assert [item["Key"] for item in left["Contents"]] == [store.prefix, store.prefix + MARKER]


@pytest.mark.parametrize("prefix", ["with space", "ü中", "a+b&c=d", "100%25", "#?;,'\"<>", "a//b"])
def test_a_prefix_may_have_any_character(opened, prefix):
    store = opened(prefix)
    store.check_writable()
    store.put(KEY, b"data")
    assert (list(store.keys("")), list(store.folders())) == ([KEY], ["job"])
    with store.open_ranges(KEY) as file:
        assert file.read() == b"data"
    store.put("job/other", b"")
    store.delete("job/")
    assert list(store.keys("")) == []


# --- what only the user can change ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault.NO_BUCKET, "Create the bucket first, or check its name"),
        (Fault.WRONG_REGION, "Set AWS_DEFAULT_REGION to the bucket's region"),
        (Fault.REDIRECT, "Set AWS_DEFAULT_REGION to the bucket's region"),
        (Fault.ACCESS_DENIED, "check the bucket's policy. Without the right to list"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_what_only_the_user_can_change_is_named_with_what_to_do(store, proxy, fault, advice):
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        proxy.fail(fault, method, "/")
    for action in (
        lambda: store.check_writable(),
        lambda: store.get(KEY),
        lambda: store.put(KEY, b""),
        lambda: create(store, b""),
        lambda: list(store.keys("")),
    ):
        with pytest.raises(StoreError, match=advice) as caught:
            action()
        assert not isinstance(caught.value, ObjectNotFoundError)


@pytest.mark.parametrize("sign", ["old/manifest.json", "validations/w.fp16.cpu.json"])
def test_the_store_of_an_earlier_version_can_be_used_without_the_right_to_write(
    opened, proxy, sign
):
    store = opened()
    store.put(sign, b"")
    denied = proxy.fail(Fault.ACCESS_DENIED, "PUT", MARKER)
    assert list(store.keys("job/")) == []
    assert denied.hits == 1
    proxy.heal()
    assert list(store.keys("job/")) == []
    assert store.get(MARKER) == b""
    assert (list(store.keys("")), list(store.folders())) == ([sign], [sign.partition("/")[0]])


@pytest.mark.parametrize(
    "action",
    [
        lambda store: list(store.keys("job/")),
        lambda store: list(store.folders()),
        lambda store: find_job(store, "job"),
        lambda store: store.check_exists(),
    ],
    ids=["keys", "folders", "find_job", "check_exists"],
)
def test_nothing_is_concluded_from_a_bucket_or_prefix_that_is_no_store(opened, action):
    store = opened("other")
    store.client.put_object(Bucket=BUCKET, Key=f"{store.prefix}of/somebody.txt")
    with pytest.raises(StoreError, match=r"is not a store\. Is that the right bucket and prefix"):
        action(opened("empty"))
    list(store.folders())  # what is listed is there
    with pytest.raises(StoreError, match="is not a store") as caught:
        store.check_exists()
    assert not isinstance(caught.value, ObjectNotFoundError)


def test_objects_can_be_read_without_the_right_to_list(store, proxy):
    store.put(KEY, b"data")
    proxy.fail(Fault.ACCESS_DENIED, "GET", "list-type=2")
    assert store.get(KEY) == b"data"
    with store.open_ranges(KEY) as file:
        assert file.read() == b"data"
    with pytest.raises(StoreError, match=r"cannot list job/: .*AccessDenied"):
        list(store.keys("job/"))


def test_a_server_that_is_not_amazon_is_addressed_by_path(opened, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example")
    url = opened().client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "k"})
    assert url.startswith(f"https://s3.example/{BUCKET}/k?")
