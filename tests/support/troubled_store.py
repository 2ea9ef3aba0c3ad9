"""A store that fails as often as a test says."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.store import FileStore, StoreError


class TroubledStore(FileStore):
    """A folder that fails as often as a test says, and records the order of writes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failures: Counter[str] = Counter()  # still to come, by action
        self.written: list[str] = []

    def fail(self, action: str) -> None:
        if self.failures[action] > 0:
            self.failures[action] -= 1
            raise StoreError(f"Store {self.url} did not {action}.")

    def get(self, key: str) -> bytes:
        self.fail("get")
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.fail("put")
        super().put(key, data)
        self.written.append(key)

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        self.fail("create")
        with super().create(key, replace=replace) as path:
            yield path
        self.written.append(key)
