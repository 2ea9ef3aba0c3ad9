"""A batch through a worker, on a real Redis and a real folder; the engine makes its numbers up."""

import logging
import time

from common import __version__
from common.embeddings.reader import open_embedding_file
from common.embeddings.shards import read_label
from common.job.layout import output_prefix, shard_key
from common.job.output_form import OutputForm
from common.rungs import PRECISION_CODES
from tests.support.jobs import TOKENS_PER_RECORD
from tests.support.processes import wait_until
from tests.support.worlds import (
    FP16,
    NEVER,
    RECORDS,
    ROWS,
    WORKER,
    FakeEngine,
    failing,
    failure,
    refuse,
)
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.results import summary

# --- a batch of which everything is finite -------------------------------------------------------


def test_a_batch_is_embedded_written_and_counted(world, batch):
    engine = FakeEngine()
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, ROWS[0])]
    shard = world.shard(0)
    assert shard.rows.tolist() == ROWS[0]
    assert shard.headers == [record.header for record in RECORDS[:4]]
    assert set(shard.precision) == {PRECISION_CODES[FP16]}
    progress = world.progress
    assert (progress.batches_done, progress.leased) == (1, 0)
    assert progress.rows_by_precision == {"fp16": 4}
    assert progress.tokens_done == 4 * TOKENS_PER_RECORD
    assert progress.device_seconds == 0.25
    assert progress.weights == "w"
    assert world.results == world.published == []
    assert world.store.written == [shard_key(world.job, 0, FP16)]


def test_a_shard_says_which_worker_computed_it_and_when(world, batch):
    before = time.time()
    world.runner().run(batch)
    computed = read_label(world.store, shard_key(world.job, 0, FP16)).computed
    assert (computed.worker, computed.device_seconds) == (WORKER.name, 0.25)
    assert before <= computed.began <= computed.ended <= time.time()


def test_a_shard_says_where_it_comes_from(world, batch):
    world.runner().run(batch)
    with (
        world.store.open(shard_key(world.job, 0, FP16)) as path,
        open_embedding_file(path) as file,
    ):
        found = dict(file.attrs)
    assert found["layers"].tolist() == [6]
    named = {name: found[name] for name in ("model", "weights", "dim", "precision", "tokens")}
    assert named == {
        "model": "random:esm2_t6_8M_UR50D",
        "weights": "w",
        "dim": 320,
        "precision": "fp16",
        "tokens": 4 * TOKENS_PER_RECORD,
    }
    assert (found["job"], found["version"]) == (world.job, __version__)
    assert "mean over residues" in found["pooling"]
    assert "mean nothing" in found["warning"]
    assert "window" not in found


def test_a_shard_of_windows_says_how_they_were_cut(world_of):
    world = world_of([4], form=OutputForm(max_residues=1000, overlap=100))
    world.runner().run(world.manifest.batch(0))
    with (
        world.store.open(shard_key(world.job, 0, FP16)) as path,
        open_embedding_file(path) as file,
    ):
        assert (file.attrs["window"], file.attrs["overlap"]) == (1000, 100)


def test_a_job_is_finished_with_its_last_batch(world):
    runner = world.runner()
    for index in (0, 1):
        runner.run(world.manifest.batch(index))
    assert world.progress.finished


def test_whether_the_job_is_to_stop_is_asked_only_if_something_is_not_finite(
    world, batch, monkeypatch
):
    monkeypatch.setattr(world.ledger.jobs, "stops_at_instability", refuse)
    world.runner().run(batch)
    assert world.progress.batches_done == 1


def test_a_claim_is_renewed_while_its_batch_is_computed(world, batch, monkeypatch):
    monkeypatch.setattr("workers.batches.lease_renewer.RENEW_SECONDS", 0.01)
    renewer = LeaseRenewer(world.ledger, WORKER)

    def lose_the_lease_and_wait() -> None:
        world.lapse(batch)
        wait_until(lambda: world.progress.leased, 10)

    renewer.start()
    try:
        engine = FakeEngine(during=lose_the_lease_and_wait)
        world.runner(engine, renewer=renewer).run(batch)
    finally:
        renewer.stop()
    assert world.progress.rows_by_precision == {"fp16": 4}
    assert world.progress.leased == 0


def test_a_batch_of_a_job_that_is_cancelled_is_dropped_between_two_packs(world, batch, monkeypatch):
    monkeypatch.setattr("workers.batches.lease_renewer.RENEW_SECONDS", 0.01)
    renewer = LeaseRenewer(world.ledger, WORKER)

    def cancel_and_wait() -> None:
        world.ledger.jobs.cancel(batch.job)
        wait_until(lambda: any(lease.is_lost for lease in renewer.held()), 10)

    renewer.start()
    try:
        world.runner(FakeEngine(during=cancel_and_wait), renewer=renewer).run(batch)
    finally:
        renewer.stop()
    assert world.progress.rows_by_precision == {}
    assert world.progress.leased == 0
    assert list(world.store.keys(output_prefix(batch.job))) == []


# --- a line in the log ---------------------------------------------------------------------------


def test_a_line_says_what_became_of_a_batch(world, batch, caplog):
    with caplog.at_level(logging.INFO):
        engine = FakeEngine({0: [FP16], 2: NEVER})
        world.runner(engine).run(batch)
        world.runner(engine).run(world.published.pop())
        world.runner(engine).run(world.published.pop())
    lines = [text for text in caplog.messages if " sequences in " in text]
    assert lines == [
        f"Batch 0 of {world.job}: 2 sequences in fp16, 24 tokens in 0.25 s, 2 not finite: "
        "retried in selective_fp32.",
        f"Batch 0 of {world.job}: 1 sequences in selective_fp32, 12 tokens in 0.25 s, 1 not "
        "finite: retried in fp32.",
        f"Batch 0 of {world.job}: 0 sequences in fp32, 0 tokens in 0.25 s, 1 not finite: "
        "quarantined.",
    ]


def test_the_line_of_a_failure_has_its_error(world, batch):
    failure(world, batch, failing(ValueError("no")))
    assert summary(world.results[0]) == "failed, ValueError: no"
