"""The store as a folder: objects are complete or absent, and errors say why."""

import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.store import (
    FileStore,
    ObjectExistsError,
    ObjectNotFoundError,
    S3Store,
    StoreError,
    open_store,
    s3,
)
from common.store.base import MARKER
from common.store.ranges import BLOCK_BYTES, RangedFile
from tests.conftest import ROOT
from tests.support.stores import folder_store

KEY = "job/input/0000000.fasta"


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


@pytest.fixture
def blocked(tmp_path) -> FileStore:
    """A store whose folder is a file."""
    path = tmp_path / "in-the-way"
    path.write_text("a file")
    return FileStore(path)


def files_in(store: FileStore) -> list[str]:
    """Return all files but the marker, including hidden ones."""
    found = sorted(path.name for path in store.root.rglob("*") if path.is_file())
    return [name for name in found if name != MARKER]


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


# --- objects that are not replaced ----------------------------------------------------------------


def write_new(store: FileStore, data: bytes) -> None:
    with store.create(KEY, replace=False) as path:
        path.write_bytes(data)


def test_an_object_that_is_not_to_replace_another_is_written_where_none_is(store):
    write_new(store, b"data")
    assert store.get(KEY) == b"data"
    assert files_in(store) == ["0000000.fasta"]


def test_an_object_that_is_there_stays_if_it_is_not_to_be_replaced(store):
    store.put(KEY, b"first")
    with pytest.raises(ObjectExistsError, match=f"Store {store.url} has {KEY} already"):
        write_new(store, b"second")
    assert store.get(KEY) == b"first"
    assert files_in(store) == ["0000000.fasta"]


def test_of_writers_that_do_not_replace_exactly_one_writes(store):
    def write(writer: int) -> int | None:
        try:
            write_new(store, bytes([writer]) * 100_000)
        except ObjectExistsError:
            return None
        return writer

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            (winner,) = {writer for writer in pool.map(write, range(8)) if writer is not None}
        assert store.get(KEY) == bytes([winner]) * 100_000
        assert files_in(store) == ["0000000.fasta"]
        store.delete(KEY)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_replaces(store, monkeypatch, code):
    def no_links(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)
    for data in (b"first", b"second"):
        write_new(store, data)
        assert store.get(KEY) == data
    assert files_in(store) == ["0000000.fasta"]


def test_a_link_that_fails_for_another_reason_is_an_error_of_the_store(store, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StoreError, match=f"cannot write {KEY}: .*No space left"):
        write_new(store, b"data")
    assert files_in(store) == []


# --- writers that are killed ----------------------------------------------------------------------

WRITE_HALF = """
import sys, time
from common.store import open_store
with open_store(sys.argv[1]).create(sys.argv[2], replace=sys.argv[3] == "replace") as path:
    path.write_bytes(b"half")
    print("half", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("replace", ["replace", "keep"])
def test_what_a_killed_writer_left_is_no_object(store, replace):
    command = [sys.executable, "-c", WRITE_HALF, store.url, KEY, replace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
    assert list(store.keys("")) == []
    with pytest.raises(ObjectNotFoundError):
        store.get(KEY)
    (left,) = files_in(store)
    assert left.startswith(".0000000.fasta.")
    write_new(store, b"whole")
    assert list(store.keys("")) == [KEY]
    assert store.get(KEY) == b"whole"


# --- parts of objects -----------------------------------------------------------------------------


def test_parts_of_an_object_can_be_read_alone(store):
    store.put(KEY, bytes(range(256)))
    with store.open_ranges(KEY) as file:
        assert file.seek(200) == 200
        assert file.read(3) == bytes([200, 201, 202])
    with pytest.raises(ObjectNotFoundError), store.open_ranges("none"):
        pass


@given(
    st.integers(0, 3 * BLOCK_BYTES),
    st.lists(
        st.tuples(st.integers(0, 4 * BLOCK_BYTES), st.integers(0, 2 * BLOCK_BYTES)), max_size=8
    ),
)
def test_a_file_that_is_read_in_blocks_reads_like_any_other(size, places):
    data = bytes(index * 31 % 251 for index in range(size))
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        fetched.append((start, end))
        return data[start:end]

    plain = io.BytesIO(data)
    with RangedFile(size, data[-BLOCK_BYTES:], fetch) as file:
        assert file.seek(0, io.SEEK_END) == size
        for offset, count in places:
            assert file.seek(offset) == plain.seek(offset)
            assert file.read(count) == plain.read(count)
            assert file.tell() == plain.tell()
    assert len(set(fetched)) == len(fetched)  # nothing twice
    assert all(
        0 < end - start <= BLOCK_BYTES and end <= size - BLOCK_BYTES for start, end in fetched
    )


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


@pytest.mark.parametrize(
    "prefix", ["", "/", "..", "../outside", "a/../../outside", "/etc", "a//b", "."]
)
def test_nothing_is_deleted_by_a_prefix_that_is_empty_or_leads_out_of_the_store(store, prefix):
    store.put("a/1", b"x")
    with pytest.raises(StoreError, match="not a key"):
        store.delete(prefix)
    assert list(store.keys("")) == ["a/1"]


def test_some_keys_are_deleted_and_no_others(store):
    for key in ("a/1", "a/2", "a/b/3", "c/4"):
        store.put(key, b"")
    checks = iter([1, 1, 1])
    store.delete_keys(["a/1", "a/none", "c/4"], lambda: next(checks))
    assert list(store.keys("")) == ["a/2", "a/b/3"]
    assert list(store.folders()) == ["a"]
    with pytest.raises(StopIteration):
        store.delete_keys(["a/2"], lambda: next(checks))
    assert list(store.keys("")) == ["a/2", "a/b/3"]


@pytest.mark.parametrize("key", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_folder_reads_and_writes_nothing_outside_it(tmp_path, key):
    (tmp_path / "secret").write_text("secret")
    store = folder_store(tmp_path / "store")
    for action in (store.get, lambda key: store.put(key, b"x"), lambda key: list(store.keys(key))):
        with pytest.raises(StoreError, match="not a key"):
            action(key)
    assert (tmp_path / "secret").read_text() == "secret"


def test_deleting_what_is_not_there_is_no_error(store):
    store.delete("none/")
    store.delete("none")
    assert list(store.keys("")) == []


def test_folders_are_the_names_directly_under_the_root(store):
    assert list(store.folders()) == []
    for key in ("b/manifest.json", "a/output/1", "a/output/2", "validations/x.json", "file"):
        store.put(key, b"")
    (store.root / ".snapshot").mkdir()
    assert list(store.folders()) == ["a", "b", "validations"]


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
        ("write to it", FileStore.check_writable),
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
            FileStore(tmp_path).check_writable()
    finally:
        tmp_path.chmod(0o700)


def test_a_store_that_can_be_written_has_nothing_but_its_marker_after_the_check(store):
    store.check_writable()
    assert files_in(store) == []


# --- URLs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store", "my store", "run#2", "what?now", "é中", "100%25"])
def test_a_folder_and_its_url_are_the_same_store(tmp_path, name):
    by_path = open_store(str(tmp_path / name))
    by_path.check_writable()
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
def test_a_store_has_the_credentials_of_when_it_was_opened(monkeypatch):
    used = []
    for key in ("first", "second"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
        signed = S3Store("bucket", "").client.generate_presigned_url(
            "get_object", {"Bucket": "bucket", "Key": "k"}
        )
        used.append(key if f"Credential={key}" in signed or f"KeyId={key}" in signed else signed)
    assert used == ["first", "second"]


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


# --- a bucket whose server misbehaves -------------------------------------------------------------


@pytest.fixture
def s3_settings(region, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return monkeypatch


@pytest.fixture
def silent_store(s3_settings) -> Iterator[S3Store]:
    """A bucket on a server that accepts connections and never answers."""
    s3_settings.setattr(s3, "READ_SECONDS", 0.1)
    s3_settings.setattr(s3, "ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        s3_settings.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield S3Store("bucket", "")


def open_whole(store: S3Store) -> None:
    with store.open(KEY):
        pass


def create_anything(store: S3Store) -> None:
    with store.create(KEY) as path:
        path.write_bytes(b"data")


@pytest.mark.parametrize(
    "action",
    [
        lambda store: store.put(KEY, b"data"),
        lambda store: store.get(KEY),
        create_anything,
        open_whole,
        lambda store: store.open_ranges(KEY).__enter__(),
        lambda store: list(store.keys("")),
        lambda store: list(store.folders()),
    ],
    ids=["put", "get", "create", "open", "open_ranges", "keys", "folders"],
)
def test_a_server_that_never_answers_is_an_error_of_the_store_in_bounded_time(silent_store, action):
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"Store s3://bucket at http://127\.0\.0\.1:\d+: cannot "):
        action(silent_store)
    assert time.monotonic() - started < 2 * 0.1 + 1 + 5  # both tries, the pause, a busy machine


class ScriptedServer(ThreadingHTTPServer):
    """A server that answers each PUT with the next status of a list, then with 200."""

    def __init__(self, *script: tuple[int, str]) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedPut)
        self.script = list(script)
        self.conditions: list[str | None] = []


class ScriptedPut(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_PUT(self) -> None:
        self.server.conditions.append(self.headers["If-None-Match"])
        self.close_connection = True
        status, code = self.server.script.pop(0) if self.server.script else (200, "")
        text = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode() if code else b""
        self.send_response(status)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


CONFLICT = (409, "ConditionalRequestConflict")


@pytest.fixture
def scripted(s3_settings):
    """Return a function that makes a bucket whose server gives certain answers."""
    servers = []

    def make(*script: tuple[int, str]) -> tuple[S3Store, ScriptedServer]:
        server = ScriptedServer(*script)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        s3_settings.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        s3_settings.setattr("common.store.s3_files.time.sleep", lambda _seconds: None)
        return S3Store("bucket", ""), server

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def create_new(store: S3Store, key: str = KEY) -> None:
    with store.create(key, replace=False) as path:
        path.write_bytes(b"data")


def test_only_a_write_that_must_not_replace_has_a_condition(scripted):
    store, server = scripted()
    store.put(KEY, b"data")
    create_anything(store)
    create_new(store)
    assert server.conditions == [None, None, "*"]


def test_a_server_without_conditional_writes_is_asked_for_one_once(scripted):
    store, server = scripted((501, "NotImplemented"))
    create_new(store, "a")
    create_new(store, "b")
    assert server.conditions == ["*", None, None]


def test_a_write_that_another_is_in_the_way_of_is_tried_again(scripted):
    store, server = scripted(CONFLICT, CONFLICT)
    create_new(store)
    assert server.conditions == ["*"] * 3
    store, server = scripted(CONFLICT, (412, "PreconditionFailed"))
    with pytest.raises(ObjectExistsError):
        create_new(store)
    assert server.conditions == ["*"] * 2


def test_a_write_that_others_are_always_in_the_way_of_is_an_error_of_the_store(scripted):
    store, server = scripted(*[CONFLICT] * 99)
    with pytest.raises(StoreError, match=f"cannot write {KEY}: .*ConditionalRequestConflict"):
        create_new(store)
    assert len(server.conditions) == 5


def test_a_write_that_is_refused_says_what_to_do(scripted):
    store, _ = scripted((403, "AccessDenied"))
    with pytest.raises(StoreError, match="check the bucket's policy"):
        create_new(store)
