"""Stores for benchmarks: one that counts requests, and one that is nearly empty."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.job.layout import manifest_key
from common.job.manifest import Manifest
from common.job.records import Record, encode_batch
from common.store import FileStore


class CountingStore(FileStore):
    """A folder that records the bytes of each request."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[int] = []
        self.written: list[int] = []

    def get(self, key: str) -> bytes:
        data = super().get(key)
        self.read.append(len(data))
        return data

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self.written.append(len(data))

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        with super().create(key, replace=replace) as path:
            yield path
            self.written.append(path.stat().st_size)


class OneRecordStore(FileStore):
    """A store with one job's manifest, and the same single record for each of its batches."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        super().__init__(root)
        self.check_writable()
        self.manifest = manifest
        self.batch = encode_batch([Record(row=0, header="record", residues="MKT")])

    def get(self, key: str) -> bytes:
        if key == manifest_key(self.manifest.job):
            return self.manifest.model_dump_json().encode()
        return self.batch
