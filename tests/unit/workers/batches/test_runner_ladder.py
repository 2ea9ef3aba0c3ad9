"""Rows that are not finite: they go on to the next rung, or stop their job."""

from collections import Counter

import pytest

from common.embeddings.reader import open_embedding_file, read_embeddings
from common.job.layout import quarantine_key, shard_key
from common.job.quarantine import read_quarantine
from common.ledger.progress import JobState
from common.rungs import PRECISION_CODES
from common.wire.messages import BatchResult, Status, retry_of
from producer.output.fetch import fetch
from tests.support.jobs import LETTERS_PER_RECORD, TOKENS_PER_RECORD
from tests.support.worlds import (
    FP16,
    FP32,
    NEVER,
    ROWS,
    SELECTIVE,
    BadRows,
    FakeEngine,
    World,
    refuse,
    run_first_rung,
    saw,
)

# --- rows that are not finite --------------------------------------------------------------------


def test_finite_rows_are_written_and_the_others_go_on_to_the_next_rung(world, batch, caplog):
    world.runner(FakeEngine({0: [FP16], 2: [FP16]})).run(batch)
    assert world.shard(0).rows.tolist() == [1, 3]
    (retry,) = world.published
    assert retry == batch.model_copy(
        update={"rung": SELECTIVE, "previous_rung": FP16, "records": 2, "tokens": None}
    )
    assert retry.first_rung is FP16
    assert world.outstanding() == [retry, world.manifest.batch(1)]
    (result,) = world.results
    assert (result.status, result.precision) == (Status.NUMERICAL_INSTABILITY, FP16)
    assert (result.records, result.tokens, result.next) == (2, 2 * TOKENS_PER_RECORD, SELECTIVE)
    assert [bad.row for bad in result.unstable] == [0, 2]
    assert not result.stops_job
    assert world.progress.state is JobState.OPEN
    assert world.progress.rows_retried == 2
    assert f"Numerical instability in job {world.job} batch 0 rung fp16: row 0 'id0'" in caplog.text
    assert world.store.written == [shard_key(world.job, 0, FP16)]


def test_a_batch_of_which_no_row_is_finite_leaves_an_empty_shard(world, batch):
    world.runner(FakeEngine({row: [FP16] for row in ROWS[0]})).run(batch)
    assert len(world.shard(0)) == 0
    assert [retry.records for retry in world.published] == [4]


def test_a_retry_embeds_the_rows_of_the_result_before_and_no_others(world):
    engine = FakeEngine({0: [FP16], 2: [FP16]})
    retry = run_first_rung(world, engine)
    world.runner(engine).run(retry)
    assert engine.calls == [(SELECTIVE, [0, 2])]
    assert world.shard(0, SELECTIVE).rows.tolist() == [0, 2]
    assert world.published == world.results == []
    progress = world.progress
    assert progress.batches_done == 1
    assert progress.rows_by_precision == {"fp16": 2, "selective_fp32": 2}


def test_a_retry_that_does_not_help_goes_on_with_what_every_rung_saw(world):
    engine = FakeEngine({0: [FP16], 2: [FP16, SELECTIVE]})
    retry = run_first_rung(world, engine)
    world.runner(engine).run(retry)
    assert world.shard(0, SELECTIVE).rows.tolist() == [0]
    (last,) = world.published
    assert last == retry.model_copy(update={"rung": FP32, "previous_rung": SELECTIVE, "records": 1})
    (result,) = world.results
    (bad,) = result.unstable
    assert bad.row == 2
    assert list(bad.seen.items()) == [(rung, saw(rung, 2)) for rung in (FP16, SELECTIVE)]
    assert world.progress.counts["rows_retried_again"] == 1


def test_what_no_rung_could_embed_is_on_record_before_the_last_shard_is_there(world):
    engine = FakeEngine({2: NEVER, 3: [FP16, SELECTIVE]})
    retry = run_first_rung(world, engine)
    world.runner(engine).run(retry)
    world.store.written.clear()
    world.runner(engine).run(world.published.pop())
    assert world.store.written == [quarantine_key(world.job, 0), shard_key(world.job, 0, FP32)]
    (bad,) = read_quarantine(world.store, world.job, 0)
    assert (bad.row, bad.id, bad.length) == (2, "id2", LETTERS_PER_RECORD)
    assert list(bad.seen.items()) == [(rung, saw(rung, 2)) for rung in NEVER]
    assert world.shard(0, FP32).rows.tolist() == [3]
    assert world.published == []
    progress = world.progress
    assert (progress.batches_done, progress.rows_quarantined) == (1, 1)
    assert progress.rows_by_precision == {"fp16": 2, "fp32": 1}


def test_what_fp32_weights_could_not_embed_is_quarantined_at_the_first_rung(world, batch):
    engine = FakeEngine({1: [FP32]}, precision=FP32)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, ROWS[0])]
    assert world.store.written == [quarantine_key(world.job, 0), shard_key(world.job, 0, FP16)]
    assert world.published == []
    assert world.progress.rows_by_precision == {"fp32": 3}
    assert world.progress.rows_quarantined == 1


def test_what_all_rungs_wrote_is_fetched_as_one_file(world, tmp_path):
    engine = FakeEngine({0: [FP16], 1: [FP16, SELECTIVE], 4: NEVER})
    runner = world.runner(engine)
    to_do = [world.manifest.batch(index) for index in (0, 1)]
    while to_do:
        runner.run(to_do.pop(0))
        to_do += world.published
        world.published.clear()
    assert world.progress.finished
    assert Counter(row for _, rows in engine.calls for row in rows) == {
        0: 2, 1: 3, 2: 1, 3: 1, 4: 3, 5: 1
    }  # fmt: skip
    fetched = fetch(world.store, world.manifest, tmp_path / "e.h5")
    assert [bad.row for bad in fetched.quarantined] == [4]
    with open_embedding_file(tmp_path / "e.h5") as file:
        found = read_embeddings(file, world.manifest.form, engine.loaded.spec.dim)
    order = {name: PRECISION_CODES[name] for name in ("none", FP16, SELECTIVE, FP32)}
    expected = [SELECTIVE, FP32, FP16, FP16, "none", FP16]
    assert found.precision.tolist() == [order[name] for name in expected]


def test_a_retry_that_cannot_be_queued_is_left_to_whoever_looks_after_lost_work(
    world, batch, caplog
):
    world.runner(FakeEngine({0: [FP16]}), publish=refuse).run(batch)
    assert "The retry of batch 0 could not be published: gone" in caplog.text
    assert [(b.index, b.rung) for b in world.outstanding()] == [(0, SELECTIVE), (1, FP16)]


def test_a_retry_is_passed_on_even_if_the_ledger_says_it_has_the_result(world, batch, monkeypatch):
    """A client sends again what was not answered; the second answer is that it is known."""
    complete = world.ledger.results.complete

    def complete_twice(result: BatchResult, *, owner: str) -> bool:
        assert complete(result, owner=owner)
        return complete(result, owner=owner)

    monkeypatch.setattr(world.ledger.results, "complete", complete_twice)
    world.runner(FakeEngine({0: [FP16]})).run(batch)
    assert [(b.index, b.rung, b.records) for b in world.published] == [(0, SELECTIVE, 1)]
    assert world.progress.batches_at(FP16) == 1


# --- a retry of what is not to be retried --------------------------------------------------------


def test_a_retry_whose_result_before_is_gone_is_dropped_and_not_held(world):
    """The ledger was made anew: it knows nothing of the rows, and begins with the rung before."""
    engine = FakeEngine({0: [FP16]})
    retry = run_first_rung(world, engine)
    world.ledger.jobs.forget(world.job)
    world.ledger.jobs.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
    world.runner(engine).run(retry)
    assert engine.calls == []
    assert world.published == []
    assert world.shards() == [shard_key(world.job, 0, FP16)]
    assert world.progress.leased == 0
    assert world.progress.batches_done == 0


@pytest.mark.parametrize(
    "again", [{}, {row: [FP32] for row in ROWS[0]}], ids=["finite", "quarantined"]
)
def test_a_retry_of_what_another_worker_settled_since_is_dropped(world, again):
    """The ledger was made anew, and a worker in FP32 did the first rung again."""
    retry = run_first_rung(world, FakeEngine({0: [FP16]}))
    world.ledger.jobs.forget(world.job)
    world.ledger.jobs.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
    world.runner(FakeEngine(again, precision=FP32)).run(world.manifest.batch(0))
    before, engine = world.progress.counts, FakeEngine()
    world.runner(engine).run(retry)
    assert engine.calls == []
    assert world.shards() == [shard_key(world.job, 0, FP16)]
    assert world.progress.counts == before
    assert world.progress.leased == 0


def test_a_retry_embeds_the_rows_that_the_ledger_knows_of_whatever_the_message_says(world):
    """The ledger was made anew, and the first rung had other rows that were not finite."""
    retry = run_first_rung(world, FakeEngine({0: [FP16]}))
    world.ledger.jobs.forget(world.job)
    world.ledger.jobs.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
    engine = FakeEngine({1: [FP16], 2: [FP16]})
    assert run_first_rung(world, engine).records == 2
    world.runner(engine).run(retry)
    assert engine.calls == [(SELECTIVE, [1, 2])]
    assert world.results == []
    assert world.progress.rows_by_precision == {"fp16": 2, "selective_fp32": 2}


# --- a job that stops at the first instability ---------------------------------------------------


def test_a_job_that_is_to_stop_stops_and_keeps_what_is_finite(world, batch):
    world.ledger.jobs.resume(world.manifest, "fail")
    world.runner(FakeEngine({0: [FP16], 2: [FP16]})).run(batch)
    assert world.progress.state is JobState.STOPPED
    assert world.shard(0).rows.tolist() == [1, 3]
    assert world.progress.rows_by_precision == {"fp16": 2}
    assert world.published == []
    (result,) = world.results
    assert (result.status, result.next) == (Status.NUMERICAL_INSTABILITY, SELECTIVE)
    assert result.stops_job


def test_a_job_that_stopped_is_left_alone(world, batch):
    world.ledger.jobs.resume(world.manifest, "fail")
    retry = retry_of(batch, stop(world))
    for message in (world.manifest.batch(1), batch, retry):
        engine = FakeEngine()
        world.runner(engine).run(message)
        assert engine.calls == []
    assert world.progress.leased == 0


def stop(world: World, bad: BadRows | None = None) -> BatchResult:
    """Let the first batch stop the job; returns its result."""
    world.runner(FakeEngine(bad or {0: [FP16]})).run(world.manifest.batch(0))
    assert world.progress.state is JobState.STOPPED
    (result,) = world.results
    return result


def test_after_a_stop_the_retry_is_to_do_and_nothing_is_computed_twice(world, batch):
    world.ledger.jobs.resume(world.manifest, "fail")
    retry = retry_of(batch, stop(world, {0: [FP16], 2: [FP16]}))
    world.ledger.jobs.resume(world.manifest, "retry")
    assert world.outstanding() == [retry, world.manifest.batch(1)]
    engine = FakeEngine({0: [FP16], 2: [FP16]})
    runner = world.runner(engine)
    for message in (batch, retry, world.manifest.batch(1)):  # the first was queued all the time
        runner.run(message)
    assert engine.calls == [(SELECTIVE, [0, 2]), (FP16, [4, 5])]
    assert world.progress.finished
    assert world.progress.rows_by_precision == {"fp16": 4, "selective_fp32": 2}


def test_what_is_to_be_done_about_instability_is_what_the_ledger_says_when_it_comes(world, batch):
    """Not what was asked for when the message was queued, or the batch begun."""
    world.ledger.jobs.resume(world.manifest, "fail")
    engine = FakeEngine(
        {0: [FP16]}, during=lambda: world.ledger.jobs.resume(world.manifest, "retry")
    )
    world.runner(engine).run(batch)
    assert world.progress.state is JobState.OPEN
    assert [retry.rung for retry in world.published] == [SELECTIVE]


@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_a_retry_that_does_not_help_stops_the_job_only_if_it_is_still_to_stop(world, policy):
    engine = FakeEngine({0: [FP16, SELECTIVE]})
    retry = run_first_rung(world, engine)
    world.ledger.jobs.resume(world.manifest, policy)
    world.runner(engine).run(retry)
    assert (world.progress.state is JobState.STOPPED) == (policy == "fail")
    assert len(world.published) == (policy == "retry")
    assert [(b.index, b.rung) for b in world.outstanding()] == [(0, FP32), (1, FP16)]


def test_a_row_that_no_rung_could_embed_stops_the_job_and_is_on_record(world, batch):
    world.ledger.jobs.resume(world.manifest, "fail")
    world.runner(FakeEngine({0: [FP32]}, precision=FP32)).run(batch)
    assert world.progress.state is JobState.STOPPED
    assert [bad.row for bad in read_quarantine(world.store, world.job, 0)] == [0]
    world.ledger.jobs.resume(world.manifest, "retry")
    assert world.outstanding() == [world.manifest.batch(1)]
