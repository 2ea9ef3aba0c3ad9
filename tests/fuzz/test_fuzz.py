"""Whatever is read may be anything: the result is right, or an error of this package says why not.

Messages in queues are in ``tests/unit/workers/transport/test_envelope.py``.
"""

import gzip
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from common.errors import VirnucproError
from common.job.inputs import read_input
from common.job.manifest import find_job, write_manifest
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.sealed import SEAL
from common.model_source import ModelSource
from common.paths import user_path
from common.rungs import Rung
from common.store import FileStore, open_store
from common.wire.address import RedisAddress
from producer.fleet.fleet import Fleet
from producer.fleet.output_file import OutputFile
from producer.input.reader import Reader
from producer.input.source import Source
from producer.output.fetch import fetch
from producer.output.verify import verify
from tests.fuzz.fuzzing import EDITS, edited, fuzz
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs, store_shard
from tests.support.staged import BATCH_RECORDS, MAX_RESIDUES, RECORDS, bad
from tests.support.stores import folder_store
from virnucpro_fleet import load as load_file

# --- inputs -------------------------------------------------------------------------------------

FASTA = b">a first\nMKTAYIAKQR\nQISF\n\n>b|2\r\nACGTNACGU*\r\n;no\n> c\nmkt-.x\n>d\nM K T\n"
INPUTS = [FASTA, gzip.compress(FASTA, mtime=0), b"\xef\xbb\xbf" + FASTA, b"@r\nACGT\n+\nIIII\n"]


@fuzz()
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.builds(edited, st.sampled_from(INPUTS), EDITS),
        st.text(alphabet=">;\n\r ACGTUMKx*-.1\t", max_size=60).map(str.encode),
    ),
    alphabet=st.sampled_from([PROTEIN, DNA]),
    unknown=st.sampled_from(["error", "x", "skip"]),
)
def test_an_input_is_read_or_refused(data, alphabet, unknown, tmp_path):
    path = tmp_path / "in.fasta"
    path.write_bytes(data)
    reader = Reader(
        Source(str(path)), alphabet=alphabet, unknown=unknown, long="truncate", max_residues=50
    )
    with suppress(VirnucproError):
        records = list(reader)
        assert records
        assert [r.row for r in records] == sorted({r.row for r in records})
        assert all(r.residues and set(r.residues) <= alphabet.letters for r in records)


# --- what stands in a store ---------------------------------------------------------------------


COLUMNS = ("ids", "rows", "precision", "mean")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> FileStore:
    """A finished job with a shard of a higher rung and a quarantined row."""
    store = folder_store(tmp_path_factory.mktemp("finished"))
    manifest = manifest_of(BATCH_RECORDS, form=OutputForm(max_residues=MAX_RESIDUES))
    manifest = store_inputs(store, manifest, RECORDS)
    write_manifest(store, manifest)
    kept = {0: [0, 3], 1: None, 2: [6, 8]}
    for index, rows in kept.items():
        store_shard(store, manifest, index, rows=rows)
    store_shard(store, manifest, 2, rung=Rung.SELECTIVE_FP32, rows=[7])
    rows = (bad(RECORDS[1], *Rung),)
    add_to_quarantine(store, Quarantine(job=manifest.job, batch=0, rows=rows))
    return store


class Read(NamedTuple):
    """What a process made of a job; None for what it refused."""

    columns: dict[str, np.ndarray] | None
    problems: list[str] | None
    inputs: bool  # whether it took all of them


def read(root: Path) -> Read:
    store = FileStore(root)
    columns = problems = None
    inputs = False
    with suppress(VirnucproError):
        manifest = find_job(store, next(iter(store.folders())))
        assert manifest is not None
        with suppress(VirnucproError):
            problems = verify(store, manifest)
        with suppress(VirnucproError):
            inputs = all(read_input(store, manifest, index) for index in range(manifest.batches))
        fetch(store, manifest, root / "found.h5")
        with load_file(root / "found.h5") as file:
            columns = {name: np.asarray(getattr(file, name)) for name in COLUMNS}
    return Read(columns, problems, inputs)


def content(key: str, data: bytes) -> bytes | None:
    """Return the bytes that are proven; None of a JSON object that has lost its seal.

    It passes as one of an earlier version.
    """
    if not key.endswith(".json"):
        return data
    seal = SEAL.search(data)
    return None if seal is None else data[: seal.start()]


class Child:
    """A process that reads jobs, so that a crash of HDF5 is the failure of one example."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=context)

    def read(self, root: Path) -> Read:
        try:
            return self.pool.submit(read, root).result(timeout=60)
        except (BrokenProcessPool, TimeoutError):
            for process in self.pool._processes.values():
                process.kill()
            self.pool.shutdown()
            self.start()
            raise


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.pool.shutdown()


@pytest.fixture(scope="module")
def right(finished, child, tmp_path_factory) -> Read:
    folder = tmp_path_factory.mktemp("right") / "store"
    shutil.copytree(finished.root, folder)
    found = child.read(folder)
    assert found.columns is not None
    assert found[1:] == ([], True)
    return found


@fuzz(slower=6)
@given(data=st.data(), edits=EDITS)
def test_a_damaged_object_of_a_job_is_noticed_and_changes_no_number(
    data, edits, finished, child, right, tmp_path
):
    key = data.draw(st.sampled_from(sorted(finished.keys(""))))
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished.root, folder)
    before = finished.get(key)
    after = edited(before, edits)
    (folder / key).write_bytes(after)
    found = child.read(folder)
    if found.columns is not None:
        for name, values in found.columns.items():
            np.testing.assert_array_equal(values, right.columns[name])
    if content(key, after) not in (None, content(key, before)):
        assert found.problems != []
        assert not (found.inputs and "/input/" in key)


# --- texts of a person --------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="aA0./:?=&%@~-_ []#\0\n", max_size=30),
    st.builds(
        lambda data, edits: edited(data.encode(), edits).decode(errors="replace"),
        st.sampled_from(
            [
                *(
                    "redis://user:word@host:6379/5?ssl_cert_reqs=none",
                    "unix:///tmp/redis.sock?db=2",
                ),
                *("rediss://[::1]:6379/0", "s3://bucket/prefix", "file:///folder", "~/folder"),
                *("facebook/esm2_t33_650M_UR50D", "random:dnabert_s", "job-0123456789ab"),
            ]
        ),
        EDITS,
    ),
)


@fuzz()
@given(text=TEXTS)
def test_a_text_of_a_person_is_understood_or_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with suppress(VirnucproError):
        open_store(text).url.encode()
    with suppress(VirnucproError):
        ModelSource.parse(text)
    with suppress(VirnucproError):
        Fleet(broker=text, store=text)
    with suppress(VirnucproError):
        RedisAddress.parse(text)
    with suppress(VirnucproError):
        _ = Fleet(store=tmp_path).job(text).manifest
    with suppress(VirnucproError):
        Source(text).check()
    with suppress(VirnucproError):
        OutputFile(path=user_path(text), is_ours=lambda *_: False, sources={}).check()
    assert not list(tmp_path.iterdir())
