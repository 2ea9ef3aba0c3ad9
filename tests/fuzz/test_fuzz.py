"""Whatever is read may be anything: the result is right, or an error of this package says why not.

Messages in queues are in ``tests/unit/workers/transport/test_envelope.py``.
"""

import gzip
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from common.errors import VirnucproError
from common.job.layout import manifest_key
from common.job.manifest import find_job
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import decode_batch
from common.model_specs import ModelSource
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> FileStore:
    """A finished job with a shard of a higher rung and a quarantined row."""
    store = folder_store(tmp_path_factory.mktemp("finished"))
    manifest = manifest_of(BATCH_RECORDS, form=OutputForm(max_residues=MAX_RESIDUES))
    store_inputs(store, manifest, RECORDS)
    store.put(manifest_key(manifest.job), manifest.model_dump_json().encode())
    kept = {0: [0, 3], 1: None, 2: [6, 8]}
    for index, rows in kept.items():
        store_shard(store, manifest, index, rows=rows)
    store_shard(store, manifest, 2, rung=Rung.SELECTIVE_FP32, rows=[7])
    rows = (bad(RECORDS[1], *Rung),)
    add_to_quarantine(store, Quarantine(job=manifest.job, batch=0, rows=rows))
    return store


def job_of(store: FileStore) -> str:
    return next(iter(store.folders()))


def vectors(store: FileStore, output: Path) -> np.ndarray:
    manifest = find_job(store, job_of(store))
    assert manifest is not None
    fetch(store, manifest, output)
    with load_file(output) as file:
        return np.asarray(file.mean)


@fuzz(slower=6)
@given(data=st.data(), edits=EDITS)
def test_a_damaged_object_of_a_job_changes_no_number(data, edits, finished, tmp_path):
    right = vectors(finished, tmp_path / "right.h5")
    key = data.draw(st.sampled_from(sorted(finished.keys(""))))
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished.root, folder)
    (folder / key).write_bytes(edited((folder / key).read_bytes(), edits))
    store = FileStore(folder)
    with suppress(VirnucproError):
        found = vectors(store, tmp_path / "found.h5")
        np.testing.assert_array_equal(found, right)
    with suppress(VirnucproError):
        manifest = find_job(store, job_of(store))
        assert manifest is None or isinstance(verify(store, manifest), list)


@fuzz()
@given(edits=EDITS)
def test_a_damaged_input_object_of_a_job_is_read_or_refused(edits, finished):
    key = next(key for key in finished.keys("") if "/input/" in key)
    with suppress(ValueError):  # the worker fails the batch with it
        assert all(record.row >= 0 for record in decode_batch(edited(finished.get(key), edits)))


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
