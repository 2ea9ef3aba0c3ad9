"""Stores in folders, as `producer init` makes them."""

from pathlib import Path

from common.store import FileStore


def folder_store(root: Path) -> FileStore:
    """Return the store in a folder, which becomes one if it is none."""
    store = FileStore(root)
    store.check_writable()
    return store
