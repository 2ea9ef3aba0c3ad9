"""The first shard of a batch is kept, unless it is damaged or different."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.embeddings.reader import read_embeddings
from common.embeddings.seal import Computed, read_trailer
from common.embeddings.shards import label_in, open_shard, read_label
from common.job.layout import shard_key
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import Rung
from common.store import FileStore
from common.wire.messages import Batch
from tests.support.jobs import manifest_of
from tests.support.shards import embeddings_of
from tests.support.stores import folder_store
from workers.batches.shards import write_shard
from workers.engine.engine import Outcome

FP16, FP32 = Rung.FP16, Rung.FP32
SPEC = MODELS["esm2_t6_8M_UR50D"]
FORM = OutputForm(include=("mean", "per_residue"), max_residues=50)
BATCH = manifest_of([4], form=FORM).batch(0)
KEY = shard_key(BATCH.job, 0, FP16)


def loaded(weights: str = "w") -> Any:
    source = ModelSource.parse("random:esm2_t6_8M_UR50D")
    return SimpleNamespace(source=source, fingerprint=weights, spec=SPEC, origins={})


def outcome_of(rows: range, precision: Rung = FP16) -> Outcome:
    """What an engine gives for such rows, with numbers of its own."""
    records = [Record(row, f"id{row}", "MKVL") for row in rows]
    embeddings = embeddings_of(records, FORM, SPEC.dim, precision=precision)
    tokens = sum(SPEC.tokens(len(record.residues)) for record in records)
    return Outcome(embeddings, (), precision, tokens, 0.0)


OURS = outcome_of(range(4))


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


def write(store: FileStore, outcome: Outcome, batch: Batch = BATCH, weights: str = "w") -> None:
    write_shard(store, batch, FORM, loaded(weights), outcome)


def stored(store: FileStore) -> Embeddings:
    with open_shard(store, KEY) as shard:
        return read_embeddings(shard.file, FORM, SPEC.dim)


def is_from(store: FileStore, outcome: Outcome) -> bool:
    """Whether the shard has the numbers of this outcome: no two have the same."""
    found, ours = stored(store), outcome.embeddings
    return np.array_equal(found.rows, ours.rows) and np.array_equal(
        found.pooled["mean"], ours.pooled["mean"]
    )


def test_an_equal_shard_is_kept_as_it_is(store, caplog):
    caplog.set_level("INFO")
    first = outcome_of(range(4))
    write(store, first)
    before = (store.root / KEY).stat()
    write(store, OURS)
    after = (store.root / KEY).stat()
    assert is_from(store, first)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert f"{KEY} exists and is equal: it is kept." in caplog.text
    assert list(store.keys("")) == [KEY]


def test_of_two_writers_at_once_one_writes_and_neither_fails(store):
    outcomes = [outcome_of(range(4)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda outcome: write(store, outcome), outcomes))
    assert sum(is_from(store, outcome) for outcome in outcomes) == 1
    assert list(store.keys("")) == [KEY]


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        # As many letters in another place, and fewer: batches of an earlier staging.
        (range(4, 8), "has other rows"),
        (range(3), "has another tokens"),
    ],
)
def test_a_shard_of_other_rows_is_replaced(store, caplog, rows, difference):
    write(store, outcome_of(rows))
    write(store, OURS)
    assert is_from(store, OURS)
    assert f"{KEY} {difference}: it is replaced." in caplog.text


@pytest.mark.parametrize(
    ("weights", "precision", "difference"),
    [("others", FP16, "another weights"), ("w", FP32, "another precision")],
)
def test_a_shard_that_something_else_computed_is_replaced(
    store, caplog, weights, precision, difference
):
    write(store, outcome_of(range(4), precision), weights=weights)
    write(store, OURS)
    assert is_from(store, OURS)
    assert difference in caplog.text


def test_the_shard_of_another_batch_is_replaced(store, caplog):
    other = BATCH.model_copy(update={"index": 7})
    write(store, outcome_of(range(4)), other)
    store.put(KEY, store.get(shard_key(BATCH.job, 7, FP16)))
    write(store, OURS)
    assert is_from(store, OURS)
    assert "has another batch" in caplog.text


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "text"])
def test_a_damaged_shard_is_replaced(store, caplog, damage):
    write(store, outcome_of(range(4)))
    data = bytearray(store.get(KEY))
    changed = data.copy()
    changed[-1] ^= 1
    damaged = {"empty": b"", "cut": data[:-100], "changed": changed, "text": b"no shard"}
    store.put(KEY, bytes(damaged[damage]))
    write(store, OURS)
    assert is_from(store, OURS)
    assert f"{KEY} cannot be read (" in caplog.text


def test_a_shard_of_another_version_of_the_program_is_kept(store, monkeypatch):
    first = outcome_of(range(4))
    monkeypatch.setattr("workers.engine.attributes.__version__", "0.0.1")
    write(store, first)
    monkeypatch.undo()
    write(store, OURS)
    assert is_from(store, first)


def test_a_shard_without_rows_is_kept_too(store):
    nothing = outcome_of(range(0))
    write(store, nothing)
    inode = (store.root / KEY).stat().st_ino
    write(store, replace(nothing, seconds=1.0))
    assert (store.root / KEY).stat().st_ino == inode


def test_a_shard_of_another_staging_is_replaced(store, caplog):
    write(store, outcome_of(range(4)), BATCH.model_copy(update={"created": 1.0}))
    write(store, OURS)
    assert is_from(store, OURS)
    assert f"{KEY} has another created: it is replaced." in caplog.text


def test_the_shard_of_another_rung_is_replaced(store, caplog):
    write(store, outcome_of(range(4)), BATCH.model_copy(update={"rung": FP32}))
    store.put(KEY, store.get(shard_key(BATCH.job, 0, FP32)))
    write(store, OURS)
    assert is_from(store, OURS)
    assert f"{KEY} has another rung: it is replaced." in caplog.text


def test_the_label_of_a_shard_says_what_its_attributes_say(store):
    write(store, OURS)
    with open_shard(store, KEY) as shard:
        in_file = label_in(shard.file, KEY)
        assert shard.label == in_file.model_copy(update={"created": BATCH.created})
    assert read_label(store, KEY) == shard.label


def test_an_equal_shard_of_an_earlier_version_is_kept(store):
    first = outcome_of(range(4))
    write(store, first)
    with store.open(KEY) as path, h5py.File(path, "r+") as file:
        file.attrs["version"] = "0.0.1"  # HDF5 cuts what follows its own end
    with store.open(KEY) as path, path.open("rb") as source:
        assert read_trailer(source) is None
    write(store, OURS)
    assert is_from(store, first)


def test_the_label_has_who_computed_the_shard_and_when(store):
    computed = Computed(worker="a", began=10.5, ended=12.0, device_seconds=0.75)
    write_shard(store, BATCH, FORM, loaded(), OURS, computed=computed)
    assert read_label(store, KEY).computed == computed


def test_a_shard_that_another_worker_computed_later_is_kept_with_its_label(store):
    first, second = (
        Computed(worker=name, began=1, ended=2, device_seconds=0) for name in ("first", "second")
    )
    for computed in (first, second):
        write_shard(store, BATCH, FORM, loaded(), OURS, computed=computed)
    assert read_label(store, KEY).computed == first
