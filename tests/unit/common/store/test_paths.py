"""Paths: no key and no link leads out of a folder that is a store."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from common.errors import UserError
from common.job.layout import manifest_key
from common.job.manifest import read_manifest
from common.store import FileStore, StoreError
from tests.support.jobs import manifest_of
from tests.support.stores import folder_store

Use = Callable[[FileStore, str], object]


def create(store: FileStore, key: str) -> None:
    with store.create(key) as path:
        path.write_bytes(b"new")


def create_unless_there(store: FileStore, key: str) -> None:
    with store.create(key, replace=False) as path:
        path.write_bytes(b"new")


def read(store: FileStore, key: str) -> None:
    with store.open(key):
        pass


def read_ranges(store: FileStore, key: str) -> None:
    with store.open_ranges(key):
        pass


USES: dict[str, Use] = {
    "get": FileStore.get,
    "put": lambda store, key: store.put(key, b"new"),
    "create": create,
    "create unless there": create_unless_there,
    "open": read,
    "open ranges": read_ranges,
    "keys": lambda store, key: list(store.keys(key)),
    "delete": FileStore.delete,
    "delete keys": lambda store, key: store.delete_keys([key]),
}


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder with a file, beside the store."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("old")
    return folder


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


def assert_untouched(outside: Path) -> None:
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "old"


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../outside/file", "job/../../outside/file", ".", "..", "a//b", "a/./b"]
)
def test_a_key_is_a_path_below_the_root(store, outside, use, key):
    with pytest.raises(StoreError):
        use(store, key)
    with pytest.raises(StoreError):
        use(store, str(outside / "file"))
    assert_untouched(outside)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("link", ["job", "job/output", "job/output/file"])
def test_a_link_out_of_the_store_is_not_followed(store, outside, use, link):
    target = outside / "file" if link.endswith("file") else outside
    path = store.root / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    with pytest.raises(StoreError, match="a link that leads out of the store"):
        use(store, link if link.endswith("file") else f"{link}/file")
    assert_untouched(outside)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_name_that_is_too_long_for_a_file_is_an_error_of_the_store_or_not_there(store, use):
    store.put("job/object", b"data")
    with suppress(StoreError):
        use(store, f"job/{'x' * 300}/file")
    assert list(store.keys("")) == ["job/object"]


def test_links_are_neither_listed_nor_deleted_through(store, outside):
    store.put("job/manifest.json", b"")
    (store.root / "job/output").symlink_to(outside)
    (store.root / "job/link").symlink_to(outside / "file")
    (store.root / "other").symlink_to(outside)
    assert list(store.keys("job")) == ["job/manifest.json"]
    assert list(store.keys("")) == ["job/manifest.json"]
    assert list(store.folders()) == ["job"]
    store.delete("job")
    assert list(store.folders()) == []
    assert_untouched(outside)


def test_an_object_may_be_a_link_to_another_place_in_the_store(store):
    store.put("job/object", b"data")
    (store.root / "job/link").symlink_to(store.root / "job/object")
    (store.root / "other").symlink_to("job")
    assert store.get("job/link") == store.get("other/object") == b"data"


def test_the_root_may_be_a_link(store, tmp_path):
    store.put("job/object", b"data")
    (tmp_path / "link").symlink_to(store.root)
    linked = FileStore(tmp_path / "link")
    assert linked.get("job/object") == b"data"
    assert list(linked.keys("job")) == ["job/object"]


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/b", "", "a\nb", "a.b", "é", "x" * 300])
def test_a_manifest_names_no_other_place(store, name):
    text = manifest_of([1]).model_dump_json().replace("job-0123456789ab", name.replace("\n", "\\n"))
    store.put(manifest_key("job-0123456789ab"), text.encode())
    with pytest.raises(UserError):
        read_manifest(store, "job-0123456789ab")
