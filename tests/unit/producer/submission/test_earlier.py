"""Which rows of earlier jobs are found."""

import numpy as np
import pytest

from common.errors import UserError
from common.job.digests import digests_of
from common.job.layout import shard_key
from common.job.manifest import write_manifest
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.rungs import Rung
from common.store import FileStore
from common.wire.messages import Instability
from producer.submission import earlier
from producer.submission.earlier import EarlierRows, earlier_rows
from producer.submission.records import as_source
from producer.submission.request import make_request
from tests.support.copies import compute, store_job

MODEL = "esm2_t6_8M_UR50D"

FORM = OutputForm(max_residues=1022)

BATCHES = [
    [Record(0, "a", "MKV"), Record(1, "b", "GAVL"), Record(2, "c", "MKV")],
    [Record(3, "d", "LIV"), Record(4, "e", "WAV")],
]

LETTERS = ["GAVL", "MKV", "LIV", "WAV", "KKK"]


@pytest.fixture
def store(tmp_path):
    store = FileStore(tmp_path / "store")
    store.check_writable()
    return store


@pytest.fixture
def request_():
    with as_source(LETTERS) as source:
        yield make_request(source, MODEL, include="mean")


def job_of(store, name="job-0123456789ab", *, batches=2, weights="w", **options):
    manifest = store_job(store, BATCHES, FORM, job=name)
    manifest = manifest.model_copy(update={"model": MODEL, **options})
    write_manifest(store, manifest)
    for index in range(batches):
        compute(store, manifest, index, ladder=False)
    return manifest


def found(rows: EarlierRows | None) -> list[str]:
    """Return which of LETTERS are found."""
    if rows is None:
        return []
    return [s for s, place in zip(LETTERS, rows.find(LETTERS), strict=True) if place >= 0]


def test_rows_of_a_finished_job_are_found_with_their_vectors(store, request_):
    job_of(store)
    rows = earlier_rows(store, request_, None, frozenset())
    assert found(rows) == LETTERS[:4]
    part = rows.take(rows.find(["LIV", "MKV", "LIV"]))
    assert part.rows.tolist() == [3, 0, 3]
    assert part.lengths.tolist() == [3, 3, 3]
    np.testing.assert_array_equal(part.pooled["mean"][0], part.pooled["mean"][2])


def test_a_batch_that_is_not_done_is_not_used(store, request_):
    job_of(store, batches=1)
    assert found(earlier_rows(store, request_, None, frozenset())) == ["GAVL", "MKV"]


def test_a_row_without_numbers_is_not_used(store, request_):
    manifest = job_of(store, batches=1)
    compute(store, manifest, 1, never=["LIV"], ladder=False)
    # It waits for a retry, so that the batch is not done; once it is quarantined, the rest is used.
    assert found(earlier_rows(store, request_, None, frozenset())) == ["GAVL", "MKV"]
    bad = Instability(row=3, id="d", length=3, seen={})
    add_to_quarantine(store, Quarantine(job=manifest.job, batch=1, rows=(bad,)))
    assert found(earlier_rows(store, request_, None, frozenset())) == ["GAVL", "MKV", "WAV"]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "esm2_t12_35M_UR50D"},
        {"rung": Rung.FP32},
        {"form": FORM.model_copy(update={"include": ("mean", "bos")})},
        {"form": FORM.model_copy(update={"max_residues": 1021})},
    ],
    ids=["model", "precision", "vectors", "length"],
)
def test_a_job_of_another_kind_is_not_used(store, request_, other):
    job_of(store, **other)
    assert earlier_rows(store, request_, None, frozenset()) is None


def test_only_rows_of_the_weights_that_workers_have_are_used(store, request_):
    job_of(store)
    assert earlier_rows(store, request_, None, frozenset({"other"})) is None
    assert found(earlier_rows(store, request_, None, frozenset({"w"}))) == LETTERS[:4]


def test_a_folder_of_a_model_is_known_by_its_files(store, request_):
    job_of(store, model_digest="one")
    assert earlier_rows(store, request_, "two", frozenset()) is None
    assert found(earlier_rows(store, request_, "one", frozenset())) == LETTERS[:4]


def test_a_damaged_job_is_left_out(store, request_, caplog):
    manifest = job_of(store)
    path = store.root / manifest.input_key(0)
    path.write_bytes(path.read_bytes().replace(b"GAVL", b"GAVK"))
    assert found(earlier_rows(store, request_, None, frozenset())) == ["LIV", "WAV"]
    assert "are not used again" in caplog.text


def test_sequences_whose_digests_begin_alike_are_told_apart(store, request_, monkeypatch):
    def alike(sequences):
        digests = digests_of(sequences).copy()
        digests[:, 0] = 7
        return digests

    monkeypatch.setattr(earlier, "digests_of", alike)
    job_of(store)
    rows = earlier_rows(store, request_, None, frozenset())
    assert set(found(rows)) < set(LETTERS[:4])
    for letters in found(rows):
        place = rows.find([letters])
        assert rows.take(place).lengths.tolist() == [len(letters)]


def test_a_shard_that_is_damaged_is_named_with_what_to_do(store, request_):
    manifest = job_of(store)
    rows = earlier_rows(store, request_, None, frozenset())
    path = store.root / shard_key(manifest.job, 0, manifest.rung)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    rows.take(rows.find(["LIV"]))
    with pytest.raises(UserError) as raised:
        rows.take(rows.find(["MKV"]))
    assert "Submit the input without --reuse" in str(raised.value)
    assert f"producer retry {manifest.job} --damaged" in str(raised.value)
    assert "--output" not in str(raised.value)
