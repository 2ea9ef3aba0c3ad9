"""The store as a folder: an object is there whole or not at all, and errors say why."""

import errno
import os
import threading

import pytest

from common.errors import UserError
from common.store import (
    FileStore,
    ObjectNotFoundError,
    S3Store,
    StoreError,
    check_writable,
    open_store,
)

KEY = "job/input/0000000.fasta"


@pytest.fixture
def store(tmp_path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def blocked(tmp_path) -> FileStore:
    """A store whose folder is a file."""
    path = tmp_path / "in-the-way"
    path.write_text("a file")
    return FileStore(path)


def files_in(store: FileStore) -> list[str]:
    """Every file there is, hidden ones included."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


# --- objects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
def test_what_is_put_is_what_is_got(store, data):
    store.put(KEY, data)
    assert store.get(KEY) == data


def test_a_second_put_replaces_the_first(store):
    store.put(KEY, b"a longer first one")
    store.put(KEY, b"second")
    assert store.get(KEY) == b"second"


def test_what_is_created_can_be_opened(store):
    with store.create(KEY) as path:
        path.write_bytes(b"data")
    with store.open(KEY) as path:
        assert path.read_bytes() == b"data"


def test_every_user_may_read_an_object(store):
    store.put(KEY, b"data")
    assert (store.root / KEY).stat().st_mode & 0o777 == 0o644


def test_an_object_is_not_there_before_it_is_whole(store):
    with store.create(KEY) as path:
        path.write_bytes(b"da")
        assert list(store.keys("")) == []
        with pytest.raises(ObjectNotFoundError), store.open(KEY):
            pass
        path.write_bytes(b"data")
    assert list(store.keys("")) == [KEY]


def test_an_object_keeps_its_content_until_the_next_is_whole(store):
    store.put(KEY, b"before")
    with store.create(KEY) as path:
        path.write_bytes(b"half")
        assert store.get(KEY) == b"before"
    assert store.get(KEY) == b"half"


def write_half_and_raise(store: FileStore, error: type[BaseException] | BaseException) -> None:
    with store.create(KEY) as path:
        path.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_nothing(store, error):
    with pytest.raises(error):
        write_half_and_raise(store, error)
    assert files_in(store) == []


def test_an_error_while_writing_leaves_the_earlier_object(store):
    store.put(KEY, b"before")
    with pytest.raises(KeyboardInterrupt):
        write_half_and_raise(store, KeyboardInterrupt)
    assert store.get(KEY) == b"before"
    assert files_in(store) == ["0000000.fasta"]


def test_a_full_disk_is_an_error_of_the_store(store):
    no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(StoreError, match=rf"cannot write {KEY}: .*No space left"):
        write_half_and_raise(store, no_space)
    assert files_in(store) == []


def test_writers_of_one_key_leave_one_whole_object(store):
    writers, rounds = 4, 25
    contents = {bytes([writer]) * 200_000 for writer in range(writers)}
    seen: set[bytes] = set()
    store.put(KEY, next(iter(contents)))
    writing = threading.Event()
    writing.set()

    def write(data: bytes) -> None:
        for _ in range(rounds):
            store.put(KEY, data)

    def read() -> None:
        while writing.is_set():
            seen.add(store.get(KEY))

    reader = threading.Thread(target=read)
    reader.start()
    threads = [threading.Thread(target=write, args=[data]) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writing.clear()
    reader.join()
    assert seen
    assert seen <= contents
    assert files_in(store) == ["0000000.fasta"]


# --- keys ---------------------------------------------------------------------------------------


def test_keys_are_in_order_and_below_their_prefix(store):
    for key in ("a/output/2", "a/output/10", "b/output/1", "a/manifest.json", "a/output/1"):
        store.put(key, b"")
    assert list(store.keys("a/output/")) == ["a/output/1", "a/output/10", "a/output/2"]
    assert list(store.keys("a/")) == [
        "a/manifest.json",
        "a/output/1",
        "a/output/10",
        "a/output/2",
    ]
    assert list(store.keys("a/manifest.json")) == ["a/manifest.json"]
    assert len(list(store.keys(""))) == 5


def test_there_are_no_keys_below_a_prefix_that_is_not_there(store):
    assert list(store.keys("none/")) == []


def test_what_a_killed_writer_left_is_not_listed(store):
    store.put("job/output/1", b"")
    (store.root / "job/output/.2.h5.abcd").write_bytes(b"half")
    assert list(store.keys("job/output/")) == ["job/output/1"]


def test_everything_below_a_prefix_is_deleted_and_nothing_else(store):
    for key in ("a/1", "a/b/2", "ab/3"):
        store.put(key, b"")
    store.delete("a/")
    assert list(store.keys("")) == ["ab/3"]
    store.delete("ab/3")
    assert list(store.keys("")) == []


def test_deleting_what_is_not_there_is_no_error(store):
    store.delete("none/")
    store.delete("none")
    assert list(store.keys("")) == []


# --- errors -------------------------------------------------------------------------------------


def test_a_missing_object_is_named_with_its_store(store):
    with pytest.raises(ObjectNotFoundError, match=f"{store.url} has no {KEY}"):
        store.get(KEY)


def test_a_folder_is_no_object(store):
    store.put(KEY, b"")
    with pytest.raises(ObjectNotFoundError):
        store.get("job/input")


@pytest.mark.parametrize(
    ("doing", "action"),
    [
        ("write job/a", lambda store: store.put("job/a", b"")),
        ("write job/a", lambda store: store.create("job/a").__enter__()),
        ("delete job/a", lambda store: store.delete("job/a")),
        ("write .virnucpro-write-test", check_writable),
    ],
    ids=["put", "create", "delete", "check_writable"],
)
def test_a_file_where_the_folder_should_be_is_an_error_of_the_store(blocked, doing, action):
    with pytest.raises(StoreError, match=f"^Store {blocked.url}: cannot {doing}: .+") as caught:
        action(blocked)
    assert str(blocked.root) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error_of_the_store(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            check_writable(FileStore(tmp_path))
    finally:
        tmp_path.chmod(0o700)


def test_a_store_that_can_be_written_has_nothing_in_it_after_the_check(store):
    check_writable(store)
    assert files_in(store) == []


# --- URLs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store", "my store", "run#2", "what?now", "é中", "100%25"])
def test_a_folder_and_its_url_are_the_same_store(tmp_path, name):
    by_path = open_store(str(tmp_path / name))
    by_path.put(KEY, b"data")
    assert (tmp_path / name / KEY).read_bytes() == b"data"
    assert by_path.url == f"file://{tmp_path}/{name}"
    assert open_store(by_path.url).get(KEY) == b"data"


def test_a_relative_folder_is_one_below_the_current(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("some/folder").url == f"file://{tmp_path}/some/folder"


@pytest.fixture
def region(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.mark.parametrize(
    ("url", "bucket", "prefix", "normal"),
    [
        ("s3://bucket", "bucket", "", "s3://bucket"),
        ("s3://bucket/", "bucket", "", "s3://bucket"),
        ("s3://bucket/some/prefix/", "bucket", "some/prefix/", "s3://bucket/some/prefix"),
    ],
)
@pytest.mark.usefixtures("region")
def test_a_bucket_may_have_a_prefix(url, bucket, prefix, normal):
    store = open_store(url)
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.url) == (bucket, prefix, normal)


@pytest.mark.usefixtures("region")
def test_s3_settings_that_boto3_refuses_are_an_error_of_the_store(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(StoreError, match=r"S3 is not set up: .*no-such-profile"):
        open_store("s3://bucket")


@pytest.mark.parametrize(
    "url", ["gs://bucket", "s3://", "s3:///key", "s3:bucket", "file://host/folder", "file:folder"]
)
def test_other_urls_are_refused_with_what_would_do(url):
    with pytest.raises(UserError, match=r"give a folder, file:///folder or s3://bucket/prefix"):
        open_store(url)
