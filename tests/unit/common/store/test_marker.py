"""A folder that is not there, or not mounted, is an error: never a store without objects."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from common.store import FileStore, ObjectNotFoundError, StoreError
from common.store.base import MARKER
from tests.support.stores import folder_store

KEY = "job/output/0000000.fp16.h5"


def create(store: FileStore) -> None:
    with store.create(KEY) as path:
        path.write_bytes(b"data")


def read(store: FileStore) -> None:
    with store.open_ranges(KEY) as part:
        part.read()


ACTIONS: dict[str, Callable[[FileStore], object]] = {
    "get": lambda store: store.get(KEY),
    "read": read,
    "put": lambda store: store.put(KEY, b"data"),
    "create": create,
    "keys": lambda store: list(store.keys("job/")),
    "all_keys": lambda store: list(store.keys("")),
    "folders": lambda store: list(store.folders()),
    "delete": lambda store: store.delete("job/"),
    "delete_keys": lambda store: store.delete_keys([KEY]),
    "check_exists": lambda store: store.check_exists(),
}

EACH_ACTION = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with one object."""
    store = folder_store(tmp_path / "mount" / "store")
    store.put(KEY, b"data")
    return store


@EACH_ACTION
@pytest.mark.parametrize("is_mount_point", [True, False])
def test_a_store_that_is_not_mounted_is_an_error_and_is_not_made_anew(
    store, action, is_mount_point
):
    away = store.root.rename(store.root.parent / "away")
    if is_mount_point:
        store.root.mkdir()
    with pytest.raises(StoreError, match=r"is not a store\. Is it mounted\?") as caught:
        action(store)
    assert not isinstance(caught.value, ObjectNotFoundError)
    assert store.root.exists() is is_mount_point
    if is_mount_point:
        assert list(store.root.iterdir()) == []
        store.root.rmdir()
    away.rename(store.root)
    action(store)


@EACH_ACTION
@pytest.mark.parametrize("sign", ["old/manifest.json", "validations/w.fp16.cpu.json"])
def test_the_store_of_an_earlier_version_is_taken_as_one(tmp_path, action, sign):
    root = tmp_path / "store"
    for key in (sign, KEY):
        (root / key).parent.mkdir(parents=True)
        (root / key).write_bytes(b"data")
    action(FileStore(root))
    assert (root / MARKER).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_the_store_of_an_earlier_version_can_be_read_where_it_cannot_be_written(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/manifest.json").write_bytes(b"data")
    tmp_path.chmod(0o500)
    try:
        assert FileStore(tmp_path).get("old/manifest.json") == b"data"
    finally:
        tmp_path.chmod(0o700)


def test_what_a_worker_of_an_earlier_version_wrote_where_the_store_was_makes_no_store(tmp_path):
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_bytes(b"data")
    with pytest.raises(StoreError, match="is not a store"):
        FileStore(tmp_path).get(KEY)


def test_no_listing_shows_the_marker(store):
    assert list(store.keys("")) == [KEY]
    assert list(store.folders()) == ["job"]


@pytest.mark.parametrize("is_mount_point", [True, False])
@pytest.mark.parametrize("key", [KEY, "job/output/0000001.fp16.h5", "other/output/1.h5"])
def test_an_object_that_is_written_while_the_store_goes_is_an_error(store, key, is_mount_point):
    away = store.root.parent / "away"

    def write() -> None:
        with store.create(key, replace=False) as path:
            path.write_bytes(b"new")
            store.root.rename(away)
            if is_mount_point:  # with what another worker wrote there
                path.parent.mkdir(parents=True)
                path.write_bytes(b"new")

    with pytest.raises(StoreError):
        write()
    if is_mount_point:
        store.root.rename(store.root.parent / "under")
    assert store.root.exists() is False
    away.rename(store.root)
    assert list(store.keys("")) == [KEY]


@pytest.fixture
def flicker(store: FileStore, monkeypatch) -> Iterator[Callable[[int], None]]:
    """Let the store be away from the n-th reading of a folder on, until the next one."""
    listed, away = os.scandir, store.root.parent / "away"

    def at(number: int) -> None:
        calls = iter(range(100))

        def scandir(path):
            call = next(calls)
            if call == number:
                store.root.rename(away)
            elif away.exists() and call == number + 1:
                away.rename(store.root)
            return listed(path)

        monkeypatch.setattr(os, "scandir", scandir)

    yield at
    monkeypatch.undo()
    if away.exists():
        away.rename(store.root)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("listing", ["keys", "all_keys", "folders"])
def test_a_listing_is_whole_though_the_store_goes_and_comes_back_meanwhile(
    store, flicker, number, listing
):
    for job in ("a", "job", "z"):
        store.put(f"{job}/output/1", b"")
    whole = ACTIONS[listing](store)
    flicker(number)
    with suppress(StoreError):
        assert ACTIONS[listing](store) == whole
