"""A job's embeddings read from its shards: by id once it is finished, as a stream before."""

import numpy as np
import pytest

from common.embeddings.file import load
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.rungs import Rung
from common.store import FileStore
from common.wire.messages import Instability
from producer.output.fetch import fetch
from producer.output.job_embeddings import BatchStream, JobEmbeddings
from tests.support.jobs import failed, manifest_of, ok, poisoned, retry_after, unstable
from tests.support.shards import store_inputs, store_shard
from tests.support.stores import folder_store

RECORDS = [Record(row, f"id{row} words", "MKVLG"[: row + 1]) for row in range(5)]
FORM = OutputForm(include=("mean", "per_residue"), max_residues=1022)
MANIFEST = manifest_of([3, 2], form=FORM, residues=15)
JOB = MANIFEST.job
FP16, SELECTIVE = Rung.FP16, Rung.SELECTIVE_FP32


@pytest.fixture
def store(tmp_path) -> FileStore:
    store = folder_store(tmp_path / "store")
    store_inputs(store, MANIFEST, RECORDS)
    return store


# --- of a finished job --------------------------------------------------------------------------


def test_they_are_what_fetch_would_write(store, tmp_path):
    store_shard(store, MANIFEST, 0, rows=[0, 2])
    store_shard(store, MANIFEST, 0, rung=SELECTIVE, rows=[1])
    store_shard(store, MANIFEST, 1)
    found = JobEmbeddings(store, MANIFEST)
    fetch(store, MANIFEST, tmp_path / "e.h5")
    with load(tmp_path / "e.h5") as file:
        assert found.ids == file.ids == [f"id{row}" for row in range(5)]
        assert np.array_equal(found.mean, file.mean)
        assert found.precision == file.precision
        assert found.precision[1] == "selective_fp32"
        for id_ in reversed(found.ids):
            assert np.array_equal(found[id_], file[id_])
            assert np.array_equal(found.residues(id_), file.residues(id_))
        assert found.attributes.items() <= file.attributes.items()
    assert len(found) == 5
    assert repr(found) == f"JobEmbeddings({JOB!r}, 5 sequences)"


def test_scores_are_what_fetch_would_write(store, tmp_path):
    form = FORM.model_copy(
        update={"include": ("pseudo_perplexity_unmasked", "logits", "entropy", "contacts")}
    )
    report = MANIFEST.report.model_copy(update={"pairs": 1 + 4 + 9 + 16 + 25})
    manifest = MANIFEST.model_copy(update={"form": form, "report": report})
    for index in range(2):
        store_shard(store, manifest, index)
    found = JobEmbeddings(store, manifest)
    fetch(store, manifest, tmp_path / "e.h5")
    with load(tmp_path / "e.h5") as file:
        perplexities = file.pseudo_perplexity_unmasked
        assert np.array_equal(found.pseudo_perplexity_unmasked, perplexities)
        for length, id_ in enumerate(found.ids, start=1):
            assert np.array_equal(found.logits(id_), file.logits(id_))
            assert np.array_equal(found.entropy(id_), file.entropy(id_))
            assert file.logits(id_).shape == (length, 33)
            assert np.array_equal(found.contacts(id_), file.contacts(id_))
            assert file.contacts(id_).shape == (length, length)
    with pytest.raises(UserError, match="have no per_residue: add it to include"):
        found.residues("id1")


def test_class_logits_are_what_fetch_would_write_and_nan_of_a_quarantined_row(store, tmp_path):
    names = ("mean", "class_logits", "residue_class_logits")
    form = OutputForm(include=names, classes=7, max_residues=1022)
    manifest = MANIFEST.model_copy(update={"form": form})
    store_shard(store, manifest, 0, rows=[0, 2])
    store_shard(store, manifest, 1)
    bad = Instability(row=1, id="id1", length=2)
    add_to_quarantine(store, Quarantine(job=JOB, batch=0, rows=(bad,)))
    found = JobEmbeddings(store, manifest)
    fetch(store, manifest, tmp_path / "e.h5")
    with load(tmp_path / "e.h5") as file:
        assert file.class_logits.shape == (5, 7)
        assert np.array_equal(found.class_logits, file.class_logits, equal_nan=True)
        assert np.isnan(file.class_logits).any(axis=1).tolist() == [False, True, *[False] * 3]
        for length, id_ in enumerate(found.ids, start=1):
            logits = file.residue_class_logits(id_)
            assert np.array_equal(found.residue_class_logits(id_), logits, equal_nan=True)
            assert logits.shape == (length, 7)


def test_means_stay_when_the_store_is_gone(store):
    for index in range(2):
        store_shard(store, MANIFEST, index)
    found = JobEmbeddings(store, MANIFEST)
    store.delete(f"{JOB}/")
    assert found.mean.shape == (5, 4)
    assert len(found["id1"]) == 4
    with pytest.raises(UserError, match="its fleet of one machine was closed"):
        found.residues("id1")


def test_a_quarantined_row_is_nan(store):
    store_shard(store, MANIFEST, 0, rows=[0, 2])
    bad = Instability(row=1, id="id1", length=2)
    add_to_quarantine(store, Quarantine(job=JOB, batch=0, rows=(bad,)))
    store_shard(store, MANIFEST, 1)
    found = JobEmbeddings(store, MANIFEST)
    assert np.isnan(found["id1"]).all()
    assert found.residues("id1").shape == (2, 4)
    assert found.precision[1] == "none"


def test_missing_batches_are_an_error_at_once(store):
    store_shard(store, MANIFEST, 0)
    with pytest.raises(UserError, match="1 of 2 batches"):
        JobEmbeddings(store, MANIFEST)


def test_what_was_not_included_is_an_error(store):
    manifest = manifest_of([3, 2], form=OutputForm(include=("bos",), max_residues=1022))
    for index in range(2):
        store_shard(store, manifest, index)
    found = JobEmbeddings(store, manifest)
    with pytest.raises(UserError, match="no mean"):
        found["id1"]
    with pytest.raises(UserError, match="no per_residue"):
        found.residues("id1")
    with pytest.raises(UserError, match="no mean"):
        BatchStream(store, None, manifest)


# --- of one that is under way -------------------------------------------------------------------


@pytest.fixture
def stream(store, ledger) -> BatchStream:
    ledger.jobs.create(MANIFEST, "m.fp16")
    return BatchStream(store, ledger, MANIFEST)


def test_each_batch_comes_once_as_it_completes(stream, store, ledger):
    assert list(stream.completed()) == []
    second = store_shard(store, MANIFEST, 1)
    ledger.results.complete(ok(MANIFEST.batch(1)))
    ((ids, vectors),) = stream.completed()
    assert ids == ["id3", "id4"]
    assert np.array_equal(vectors, second.pooled["mean"])
    store_shard(store, MANIFEST, 0)
    ledger.results.complete(ok(MANIFEST.batch(0)))
    assert [ids for ids, _ in stream.completed()] == [["id0", "id1", "id2"]]
    assert list(stream.completed()) == []
    stream.check_all_came()


def test_a_batch_with_rows_to_retry_comes_with_their_final_numbers(stream, store, ledger):
    store_shard(store, MANIFEST, 0, rows=[0, 2])
    result = unstable(MANIFEST.batch(0), 1)
    ledger.results.complete(result)
    assert list(stream.completed()) == []
    retried = store_shard(store, MANIFEST, 0, rung=SELECTIVE, rows=[1])
    ledger.results.complete(ok(retry_after(MANIFEST, result)))
    ((ids, vectors),) = stream.completed()
    assert ids == ["id0", "id1", "id2"]
    assert np.array_equal(vectors[1], retried.pooled["mean"][0])
    assert np.isfinite(vectors).all()


def test_a_row_that_crashes_its_worker_is_nan(stream, store, ledger):
    store_shard(store, MANIFEST, 0, rows=[0, 2])
    bad = Instability(row=1, id="id1", length=2, reason="it ends")
    add_to_quarantine(store, Quarantine(job=JOB, batch=0, rows=(bad,)))
    ledger.results.complete(poisoned(MANIFEST.batch(0), 1))
    ((_, vectors),) = stream.completed()
    assert np.isnan(vectors[1]).all()


def test_a_failed_batch_does_not_come_and_is_an_error_at_the_end(stream, store, ledger):
    store_shard(store, MANIFEST, 1)
    ledger.results.complete(failed(MANIFEST.batch(0)))
    ledger.results.complete(ok(MANIFEST.batch(1)))
    assert [ids for ids, _ in stream.completed()] == [["id3", "id4"]]
    with pytest.raises(
        UserError, match=r"1 of 2 batches of .* failed; all others were yielded. .* job.retry\(\)"
    ):
        stream.check_all_came()
