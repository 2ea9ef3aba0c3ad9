"""One job alone: what is seen of it from outside, and stubs whose shards are a worker's."""

import os
import subprocess
import sys
from contextlib import nullcontext

import h5py
import numpy as np

from benchmarks.processes import Peaks, peak_bytes
from benchmarks.single import Moments, jobs_of_input, report_parts
from benchmarks.stubs import InstantEngine, worker_of
from common.job.layout import shard_key
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_source import ModelSource
from common.rungs import Rung
from common.store import FileStore
from tests.support.jobs import manifest_of
from workers.batches.shards import write_shard

MODEL = ModelSource.parse("random:esm2_t6_8M_UR50D")


def test_each_moment_is_when_it_was_first_seen_and_the_last_batch_when_it_was_new():
    moments = Moments()
    moments.look(1.0, 0, staged=False, file=False)
    moments.look(2.0, 1, staged=False, file=False)
    moments.look(3.0, 2, staged=True, file=False)
    moments.look(4.0, 2, staged=True, file=True)
    moments.look(5.0, 2, staged=True, file=True)
    assert moments == Moments(first=2.0, staged=3.0, last=3.0, file=4.0, batches=2)


def test_a_job_of_another_input_is_none_of_the_measurement():
    assert jobs_of_input(["proteins-1", "warm-up-2"]) == ["proteins-1"]


def test_the_job_is_compared_with_the_sum_of_its_parts():
    *_, last = report_parts({"submit": 1.0, "fetch": 3.0}, 2.0)
    assert "4.00 s" in last
    assert "50%" in last


def test_an_instant_engine_leaves_shards_of_any_width_with_the_rows_of_each_batch(tmp_path):
    store, form = FileStore(tmp_path), OutputForm(max_residues=1022)
    store.check_writable()
    engine, manifest = InstantEngine(MODEL, dim=7), manifest_of([2, 3], model=MODEL.text)
    for index, rows in enumerate([(0, 1), (2, 3, 4)]):
        records = [Record(row, f"r{row}", "MKT") for row in rows]
        outcome = engine.embed(records, form)
        write_shard(store, manifest.batch(index), form, engine.loaded, outcome)
        key = shard_key(manifest.job, index, Rung.FP16)
        with h5py.File(tmp_path / key) as file:
            assert file["rows"][:].tolist() == list(rows)
            assert file["mean"].shape == (len(rows), 7)
            assert np.isfinite(file["mean"][:]).all()


def test_a_stub_worker_serves_the_queue_of_its_model():
    worker = worker_of(MODEL, "stub")
    assert (worker.name, worker.model) == ("stub", MODEL.text)
    assert worker.queues[0] == "random.esm2_t6_8M_UR50D.fp16"


def test_the_memory_of_a_process_and_of_its_children_is_seen():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child, child.stdin or nullcontext():
        peaks = Peaks(os.getpid())
        peaks.look()
        assert peaks.own == peak_bytes(os.getpid()) > 10**6
        assert peaks.child > 0


def test_a_process_that_has_ended_has_no_memory():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert peak_bytes(child.pid) == 0
