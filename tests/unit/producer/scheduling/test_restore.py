"""Restoring a result from a shard, and the little that is read for it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from redis import Redis

from common.embeddings.seal import FOOTER_BYTES
from common.job.layout import input_key, shard_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.job.shards import shards_of
from common.ledger.keys import job_key
from common.ledger.ledger import Ledger
from common.rungs import Rung, ladder
from common.store import FileStore, StoreError
from common.store.ranges import BLOCK_BYTES
from common.wire.messages import Status
from producer.scheduling.restore import restore, result_of_shard, results_of_batch
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs, store_shard

FP16, SELECTIVE, FP32 = ladder(Rung.FP16)

RECORDS = [Record(row, f"id{row}", "MKVLGASTLL") for row in range(400)]
FORMS = [
    OutputForm(max_residues=50),
    OutputForm(include=("per_residue",), max_residues=50),
    OutputForm(include=("mean", "per_residue"), max_residues=50),
    OutputForm(include=("mean", "bos", "per_residue"), layers=tuple(range(7)), max_residues=50),
]


class Watched(io.RawIOBase):
    """A file that records which parts of it were read."""

    def __init__(self, path: Path, parts: list[range]) -> None:
        self.file = path.open("rb")
        self.parts = parts

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        start = self.file.tell()
        read = self.file.readinto(buffer)
        self.parts.append(range(start, start + read))
        return read

    def close(self) -> None:
        self.file.close()
        super().close()


class WatchedStore(FileStore):
    """A folder that records which parts of its objects were read, and which were read whole."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.parts: list[range] = []
        self.whole: list[str] = []

    @contextmanager
    def open_ranges(self, key: str) -> Iterator[BinaryIO]:
        with Watched(self.root / key, self.parts) as file:
            yield cast(BinaryIO, file)

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        self.whole.append(key)
        with super().open(key) as path:
            yield path

    def shards_read_whole(self) -> list[str]:
        return [key for key in self.whole if "/output/" in key]


@pytest.fixture
def store(tmp_path) -> WatchedStore:
    store = WatchedStore(tmp_path / "store")
    store.check_writable()
    return store


def staged(store: FileStore, sizes: list[int], form: OutputForm = FORMS[0]) -> Manifest:
    manifest = manifest_of(sizes, form=form)
    return store_inputs(store, manifest, RECORDS[: sum(sizes)])


def create(ledger: Ledger, store: FileStore, manifest: Manifest) -> None:
    stored = np.zeros(manifest.batches, bool)
    stored[list(shards_of(store, manifest))] = True
    assert ledger.jobs.create(manifest, "m.fp16", stored)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "+".join(form.include))
@pytest.mark.parametrize("rows", [range(400), range(399), range(0)], ids=["all", "some", "none"])
def test_a_shard_tells_what_it_is_in_its_last_block(store, form, rows):
    """One request to a bucket suffices, unless rows are missing: it has to be known which."""
    manifest = staged(store, [400], form)
    store_shard(store, manifest, 0, rows=rows, dim=8)
    key = shard_key(manifest.job, 0, FP16)
    result, weights = result_of_shard(store, manifest, 0, FP16, key, None)
    assert (result.records, len(result.unstable), weights) == (len(rows), 400 - len(rows), "w")
    assert min(part.start for part in store.parts) >= (store.root / key).stat().st_size - 1000
    assert store.shards_read_whole() == ([] if len(rows) == 400 else [key])


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "+".join(form.include))
def test_no_vector_is_read_of_a_shard_of_an_earlier_version(store, form):
    manifest = staged(store, [400], form)
    store_shard(store, manifest, 0, dim=8, sealed=False)
    key = shard_key(manifest.job, 0, FP16)
    result, weights = result_of_shard(store, manifest, 0, FP16, key, None)
    assert (result.records, len(result.unstable), weights) == (400, 0, "w")
    last = (store.root / key).stat().st_size - FOOTER_BYTES
    assert max(part.stop for part in store.parts if part.start != last) <= BLOCK_BYTES
    assert store.shards_read_whole() == []


def test_a_job_is_restored_with_every_batch_and_rung(store, ledger: Ledger):
    manifest = staged(store, [2] * 30)
    for index in range(20):
        store_shard(store, manifest, index, rows=[2 * index] if index % 2 else None)
    for index in range(1, 10, 2):
        store_shard(store, manifest, index, rung=SELECTIVE, rows=[2 * index + 1])
    create(ledger, store, manifest)
    retries = restore(store, ledger, manifest)
    assert [(retry.index, retry.rung) for retry in retries] == [
        (index, SELECTIVE) for index in range(11, 20, 2)
    ]
    progress = ledger.jobs.progress(manifest.job)
    assert progress is not None
    assert progress.weights == "w"
    assert progress.batches_done == 10 + 5
    assert progress.rows_by_precision == {"fp16": 30, "selective_fp32": 5}
    outstanding = [(batch.index, batch.rung) for batch in ledger.batches.outstanding(manifest)]
    assert sorted(outstanding) == [
        *((index, SELECTIVE) for index in range(11, 20, 2)),
        *((index, FP16) for index in range(20, 30)),
    ]


def test_what_is_restored_twice_counts_once(store, ledger: Ledger, redis: Redis):
    manifest = staged(store, [2] * 3)
    for index in range(3):
        store_shard(store, manifest, index)
    create(ledger, store, manifest)
    stored = ledger.redis.dump(f"{job_key(manifest.job)}:stored")
    restore(store, ledger, manifest)
    ledger.redis.restore(f"{job_key(manifest.job)}:stored", 0, stored)
    restore(store, ledger, manifest)
    progress = ledger.jobs.progress(manifest.job)
    assert progress is not None
    assert progress.tokens_done == 6 * 12


def read_batch(store: FileStore, manifest: Manifest, index: int) -> list[Status]:
    return [result.status for result, _ in results_of_batch(store, manifest, index)]


def test_the_shard_of_another_batch_is_left_for_the_worker_to_replace(store, caplog):
    manifest = staged(store, [2, 2])
    store_shard(store, manifest, 1)
    wrong = store.get(shard_key(manifest.job, 1, FP16))
    store.put(shard_key(manifest.job, 0, FP16), wrong)
    assert read_batch(store, manifest, 0) == []
    assert read_batch(store, manifest, 1) == [Status.OK]
    assert f"it belongs to batch 1 of {manifest.job}): it will be computed again" in caplog.text
    assert store.get(shard_key(manifest.job, 0, FP16)) == wrong


def test_a_shard_of_more_rows_than_its_batch_has_is_of_an_earlier_staging(store, caplog):
    store_shard(store, staged(store, [3]), 0)
    assert read_batch(store, staged(store, [2, 1]), 0) == []
    assert "it has 3 rows instead of 2): it will be computed again" in caplog.text


def test_a_shard_with_rows_that_its_batch_has_not_is_of_an_earlier_staging(store, caplog):
    earlier = staged(store, [2, 2])
    store_shard(store, earlier, 1)
    now = staged(store, [1, 3])
    now = store_inputs(store, now, RECORDS[4:8])
    assert read_batch(store, now, 1) == []
    assert "it has rows of another batch, row 2 first): it will be computed again" in caplog.text


def test_a_retry_with_rows_that_were_not_to_be_retried_is_of_an_earlier_staging(store, caplog):
    manifest = staged(store, [4])
    store_shard(store, manifest, 0, rows=[0, 1])
    store_shard(store, manifest, 0, rung=SELECTIVE, rows=[1])
    assert read_batch(store, manifest, 0) == [Status.NUMERICAL_INSTABILITY]
    assert f"{shard_key(manifest.job, 0, SELECTIVE)} cannot be read (" in caplog.text


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_damaged_shard_is_left_for_the_worker_to_replace(store, caplog, keep):
    manifest = staged(store, [2])
    store_shard(store, manifest, 0)
    key = shard_key(manifest.job, 0, FP16)
    store.put(key, store.get(key)[:keep])
    assert read_batch(store, manifest, 0) == []
    assert f"{key} cannot be read (" in caplog.text
    assert len(store.get(key)) == keep


def test_a_store_that_fails_is_no_damaged_shard(store, ledger: Ledger, monkeypatch):
    manifest = staged(store, [2] * 4)
    for index in range(4):
        store_shard(store, manifest, index)

    def fail(*_: object) -> int:
        raise StoreError("the store is away")

    monkeypatch.setattr(Watched, "readinto", fail)
    create(ledger, store, manifest)
    with pytest.raises(StoreError, match="the store is away"):
        restore(store, ledger, manifest)
    assert ledger.batches.stored(manifest).all()


def test_an_input_that_is_gone_is_not_needed_for_whole_shards(store):
    manifest = staged(store, [2])
    store_shard(store, manifest, 0)
    store.delete(input_key(manifest.job, 0))
    assert read_batch(store, manifest, 0) == [Status.OK]


def test_no_row_is_restored_from_an_input_object_that_changed(store, caplog):
    manifest = staged(store, [4])
    store_shard(store, manifest, 0, rows=[0, 1])
    key = input_key(manifest.job, 0)
    store.put(key, store.get(key).replace(b"id3", b"id4"))
    assert read_batch(store, manifest, 0) == []
    assert f"{key} is damaged (it has another checksum" in caplog.text


def test_a_shard_of_another_staging_is_computed_again(store, caplog):
    manifest = staged(store, [2])
    store_shard(store, manifest, 0)
    later = manifest.model_copy(update={"created": manifest.created + timedelta(seconds=1)})
    assert read_batch(store, later, 0) == []
    assert "it is of another staging of the job): it will be computed again" in caplog.text
    store_shard(store, manifest, 0, sealed=False)
    assert read_batch(store, later, 0) == [Status.OK]


def test_a_shard_under_the_name_of_another_rung_is_computed_again(store, caplog):
    manifest = staged(store, [2])
    store_shard(store, manifest, 0, rung=SELECTIVE)
    store.put(shard_key(manifest.job, 0, FP16), store.get(shard_key(manifest.job, 0, SELECTIVE)))
    assert read_batch(store, manifest, 0) == []
    assert "it belongs to batch 0 of" in caplog.text
