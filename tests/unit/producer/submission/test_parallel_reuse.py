"""Several processes take over rows of earlier jobs as one does."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.job.manifest import write_manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.job.reused import read_reused, read_reused_names
from common.store import FileStore
from producer.input import blocks, formats, packed, pieces
from producer.input.batches import Budget
from producer.input.source import Source
from producer.submission import staging_pool
from producer.submission.earlier import earlier_rows
from producer.submission.request import make_request
from tests.support.copies import compute, store_job
from tests.support.staging import PoolWithoutProcesses, staged
from tests.support.stores import folder_store

MODEL = "esm2_t6_8M_UR50D"
DIM = 4
FORM = OutputForm(max_residues=1022)

#: What an earlier job has computed, and what is new.
KNOWN = ["MKV", "GAVL", "LIV" * 5, "WAV"]
NEW = ["KKK", "MLL" * 9, "AAL"]

sequences = st.lists(st.sampled_from([*KNOWN, *NEW]), min_size=1, max_size=80)
budgets = st.builds(Budget, tokens=st.integers(1, 200))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_pool, "StagingPool", PoolWithoutProcesses)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 128)
    monkeypatch.setattr(packed, "CHUNK_BYTES", (200, 60))
    for module in (blocks, formats, pieces):
        monkeypatch.setattr(module, "READ_BYTES", 64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileStore]:
    """A store with a job that has computed some sequences."""
    store = folder_store(tmp_path_factory.mktemp("store"))
    records = [Record(row, f"k{row}", letters) for row, letters in enumerate(KNOWN)]
    manifest = store_job(store, [records[:2], records[2:]], FORM, job="job-0123456789ab")
    manifest = manifest.model_copy(update={"model": MODEL})
    write_manifest(store, manifest)
    for index in range(2):
        compute(store, manifest, index, ladder=False)
    return store


@given(sequences, budgets, st.booleans())
def test_rows_of_earlier_jobs_are_taken_over_as_in_one_process(store, letters, budget, dedup):
    with TemporaryDirectory() as folder:
        path = Path(folder, "p.fasta")
        path.write_text("".join(f">r{row} é\n{each}\n" for row, each in enumerate(letters)))
        request = make_request(Source(str(path)), MODEL, dedup=dedup)
        found: list[Any] = []
        for processes in (1, 2):
            own = folder_store(Path(folder, f"by-{processes}"))
            earlier = earlier_rows(store, request, None, frozenset())
            manifest = staged(own, request, budget, processes, MODEL, earlier=earlier)
            objects = [own.get(key) for key in own.keys("") if key.endswith((".fasta", ".tsv"))]
            found.append((manifest, objects, reused_of(own, manifest)))
        assert found[1] == found[0]


def test_all_rows_that_an_earlier_job_has_are_taken_over_but_the_first_of_each_batch(
    store, tmp_path
):
    path = tmp_path / "p.fasta"
    path.write_text("".join(f">r{row}\n{KNOWN[row % 4]}\n" for row in range(100)))
    request = make_request(Source(str(path)), MODEL)
    earlier = earlier_rows(store, request, None, frozenset())
    own = folder_store(tmp_path / "own")
    manifest = staged(own, request, Budget(tokens=100), 2, MODEL, earlier=earlier)
    assert (manifest.batches, manifest.report.reused) == (1, 99)
    assert len(reused_of(own, manifest)[0][0]) == 99


def reused_of(store: FileStore, manifest: Any) -> list[Any]:
    """Return the rows that each batch has taken over, with their vectors."""
    found = []
    for index in range(manifest.batches):
        if manifest.reused_of(index):
            names = read_reused_names(store, manifest, index)
            vectors = read_reused(store, manifest, index, DIM, manifest.reused_weights)
            numbers = names.rows, names.digests, vectors.pooled["mean"], vectors.precision
            found.append([names.headers, *(each.tolist() for each in numbers)])
    return found
