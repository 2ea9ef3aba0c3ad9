"""A batch through a worker, on a real Redis and a real folder; the engine makes its numbers up."""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from common import __version__
from common.batchfile import Record
from common.errors import UserError
from common.layout import (
    input_key,
    manifest_key,
    output_prefix,
    quarantine_key,
    shard_key,
)
from common.ledger import (
    LEASE_SECONDS,
    JobState,
    Ledger,
    Progress,
    WorkerInfo,
    field_of,
    job_key,
)
from common.manifest import Manifest, OutputForm, write_manifest
from common.messages import Batch, BatchResult, Instability, NonFinite, Status, retry_of
from common.modeltable import MODELS, ModelSource
from common.quarantine import read_quarantine
from common.rungs import PRECISION_CODES, Rung
from common.shard import Embeddings, open_embedding_file, read_embeddings
from common.store import FileStore, StoreError
from producer.fetch import fetch
from tests.support.jobs import LETTERS_PER_RECORD, TOKENS_PER_RECORD, manifest_of, ok
from tests.support.processes import wait_until
from tests.support.shards import embeddings_of, store_inputs
from workers.engine import DeviceLostError, Outcome
from workers.heartbeat import Heartbeat
from workers.tasks import (
    EXIT_DEVICE_LOST,
    LEAVE_SECONDS,
    MAX_ATTEMPTS,
    STORE_RETRY_SECONDS,
    BatchRunner,
    GiveBackError,
    summary,
)

FP16, SELECTIVE, FP32 = Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32

BATCH_RECORDS = [4, 2]
ROWS = [[0, 1, 2, 3], [4, 5]]
RECORDS = [Record(row, f"id{row} words", "MKVLGASTLL") for row in range(6)]

WORKER = WorkerInfo(
    name="a", model="m", weights="w", device="CPU", precision=FP16, queues=("m.fp16",)
)

#: Rows that are not finite, and in which precisions.
NEVER = (FP16, SELECTIVE, FP32)
BadRows = Mapping[int, Sequence[Rung]]


def saw(precision: Rung, row: int) -> NonFinite:
    """What a precision saw of a row, different for each."""
    return NonFinite(nan=1 + row, inf=PRECISION_CODES[precision], finite_min=None, finite_max=None)


def nothing() -> None:
    pass


@dataclass
class FakeEngine:
    """Makes up numbers for rows in half precision and above, and notes what it was asked for."""

    bad: BadRows = field(default_factory=dict)
    precision: Rung = FP16
    during: Callable[[], None] = nothing  # is called in the middle of a batch
    calls: list[tuple[Rung, list[int]]] = field(default_factory=list)
    loaded: Any = field(
        default_factory=lambda: SimpleNamespace(
            source=ModelSource.parse("random:esm2_t6_8M_UR50D"),
            fingerprint="w",
            spec=MODELS["esm2_t6_8M_UR50D"],
        )
    )

    def embed(
        self,
        records: Sequence[Record],
        form: OutputForm,
        *,
        rung: Rung,
        between_packs: Callable[[], None],
    ) -> Outcome:
        precision = FP32 if self.precision is FP32 else rung
        self.calls.append((rung, [record.row for record in records]))
        self.during()
        between_packs()
        without = {record.row for record in records if precision in self.bad.get(record.row, ())}
        kept = [record for record in records if record.row not in without]
        return Outcome(
            embeddings=embeddings_of(kept, form, self.loaded.spec.dim, precision=precision),
            unstable=tuple(
                Instability(
                    row=record.row,
                    id=record.id,
                    length=len(record.residues),
                    seen={precision: saw(precision, record.row)},
                )
                for record in records
                if record.row in without
            ),
            precision=precision,
            tokens=TOKENS_PER_RECORD * len(kept),
            seconds=0.25,
        )


class TroubledStore(FileStore):
    """A folder that fails as often as it is told to, and notes in which order it was written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failures: Counter[str] = Counter()  # still to come, by action
        self.written: list[str] = []

    def fail(self, action: str) -> None:
        if self.failures[action] > 0:
            self.failures[action] -= 1
            raise StoreError(f"Store {self.url} did not {action}.")

    def get(self, key: str) -> bytes:
        self.fail("get")
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.fail("put")
        super().put(key, data)
        self.written.append(key)

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        self.fail("create")
        with super().create(key, replace=replace) as path:
            yield path
        self.written.append(key)


class Impatient(threading.Event):
    """Waits no time at all, and notes for how long it was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


class Runner(BatchRunner):
    """A runner whose pauses take no time."""

    stopping: Impatient

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.stopping = Impatient()


@dataclass
class World:
    """An open job, and all that a worker needs for it."""

    ledger: Ledger
    store: TroubledStore
    manifest: Manifest
    published: list[Batch] = field(default_factory=list)

    def runner(self, engine: FakeEngine | None = None, **parts: Any) -> Runner:
        defaults = {
            "store": self.store,
            "ledger": self.ledger,
            "engine": engine or FakeEngine(),
            "heartbeat": Heartbeat(self.ledger, WORKER),  # not started
            "publish": self.published.append,
            "name": "a",
        }
        return Runner(**(defaults | parts))

    @property
    def job(self) -> str:
        return self.manifest.job

    @property
    def progress(self) -> Progress:
        progress = self.ledger.progress(self.job)
        assert progress is not None
        return progress

    @property
    def results(self) -> list[BatchResult]:
        return self.ledger.results(self.job)

    def outstanding(self) -> list[Batch]:
        return list(self.ledger.outstanding(self.manifest))

    def shard(self, index: int, rung: Rung = FP16) -> Embeddings:
        with (
            self.store.open(shard_key(self.job, index, rung)) as path,
            open_embedding_file(path) as file,
        ):
            return read_embeddings(file, self.manifest.form)

    def shards(self) -> list[str]:
        return list(self.store.keys(f"{self.job}/output/"))

    def lapse(self, batch: Batch) -> None:
        """Let the lease on a batch run out now."""
        leases = f"{job_key(batch.job)}:leases"
        self.ledger.redis.zadd(leases, {field_of(batch.index, batch.rung): 1})

    def take_over(self, batch: Batch) -> None:
        """Let somebody else have a batch."""
        self.lapse(batch)
        self.ledger.expire_leases(batch.job)
        self.claim(batch)

    def claim(self, batch: Batch, owner: str = "other") -> int:
        outcome, attempt = self.ledger.claim(batch, owner=owner, weights="w")
        assert outcome == "taken"
        return attempt

    def use_up_attempts(self, batch: Batch) -> None:
        """Leave one attempt at a batch."""
        for number in range(1, MAX_ATTEMPTS):
            assert self.claim(batch) == number
            self.ledger.release(batch, owner="other")


@pytest.fixture
def world_of(ledger, tmp_path) -> Callable[..., World]:
    def make(batch_records: Sequence[int] = BATCH_RECORDS, **options: Any) -> World:
        manifest = manifest_of(batch_records, **options)
        store = TroubledStore(tmp_path / "store")
        store_inputs(store, manifest, RECORDS[: sum(batch_records)])
        write_manifest(store, manifest)
        ledger.create(manifest, f"random.esm2_t6_8M_UR50D.{manifest.rung}")
        store.written.clear()
        return World(ledger, store, manifest)

    return make


@pytest.fixture
def world(world_of) -> World:
    return world_of()


@pytest.fixture
def batch(world) -> Batch:
    return world.manifest.batch(0)


def run_first_rung(world: World, engine: FakeEngine) -> Batch:
    """Run the first batch, of which rows are not finite; returns the message of its retry."""
    world.runner(engine).run(world.manifest.batch(0))
    engine.calls.clear()
    world.store.written.clear()
    return world.published.pop()


def refuse(*_: object, **__: object) -> NoReturn:
    raise RedisConnectionError("gone")


# --- a batch of which everything is finite ------------------------------------------------------


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
    assert progress.count("tokens_done") == 4 * TOKENS_PER_RECORD
    assert progress.count("milliseconds") == 250
    assert progress.weights == "w"
    assert world.results == world.published == []
    assert world.store.written == [shard_key(world.job, 0, FP16)]


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
    monkeypatch.setattr(world.ledger, "stops_at_instability", refuse)
    world.runner().run(batch)
    assert world.progress.batches_done == 1


def test_a_claim_is_renewed_while_its_batch_is_computed(world, batch, monkeypatch):
    monkeypatch.setattr("workers.heartbeat.RENEW_SECONDS", 0.01)
    heartbeat = Heartbeat(world.ledger, WORKER)

    def lose_the_lease_and_wait() -> None:
        world.lapse(batch)
        wait_until(lambda: world.progress.leased, 10)

    heartbeat.start()
    try:
        engine = FakeEngine(during=lose_the_lease_and_wait)
        world.runner(engine, heartbeat=heartbeat).run(batch)
    finally:
        heartbeat.stop()
    assert world.progress.rows_by_precision == {"fp16": 4}
    assert world.progress.leased == 0


def test_a_batch_of_a_job_that_is_cancelled_is_dropped_between_two_packs(world, batch, monkeypatch):
    monkeypatch.setattr("workers.heartbeat.RENEW_SECONDS", 0.01)
    heartbeat = Heartbeat(world.ledger, WORKER)

    def cancel_and_wait() -> None:
        world.ledger.cancel(batch.job)
        wait_until(lambda: heartbeat._lost, 10)

    heartbeat.start()
    try:
        world.runner(FakeEngine(during=cancel_and_wait), heartbeat=heartbeat).run(batch)
    finally:
        heartbeat.stop()
    assert world.progress.rows_by_precision == {}
    assert world.progress.leased == 0
    assert list(world.store.keys(output_prefix(batch.job))) == []


# --- rows that are not finite -------------------------------------------------------------------


def test_finite_rows_are_written_and_the_others_go_on_to_the_next_rung(world, batch, caplog):
    world.runner(FakeEngine({0: [FP16], 2: [FP16]})).run(batch)
    assert world.shard(0).rows.tolist() == [1, 3]
    (retry,) = world.published
    assert retry == batch.model_copy(update={"rung": SELECTIVE, "after": FP16, "records": 2})
    assert retry.first is FP16
    assert world.outstanding() == [retry, world.manifest.batch(1)]
    (result,) = world.results
    assert (result.status, result.precision) == (Status.NUMERICAL_INSTABILITY, FP16)
    assert (result.records, result.tokens, result.next) == (2, 2 * TOKENS_PER_RECORD, SELECTIVE)
    assert [bad.row for bad in result.unstable] == [0, 2]
    assert not result.stops_job
    assert world.progress.state is JobState.OPEN
    assert world.progress.count("rows_retried") == 2
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
    assert last == retry.model_copy(update={"rung": FP32, "after": SELECTIVE, "records": 1})
    (result,) = world.results
    (bad,) = result.unstable
    assert bad.row == 2
    assert list(bad.seen.items()) == [(rung, saw(rung, 2)) for rung in (FP16, SELECTIVE)]
    assert world.progress.count("rows_retried_again") == 1


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
    assert (progress.batches_done, progress.count("rows_quarantined")) == (1, 1)
    assert progress.rows_by_precision == {"fp16": 2, "fp32": 1}


def test_what_fp32_weights_could_not_embed_is_quarantined_at_the_first_rung(world, batch):
    engine = FakeEngine({1: [FP32]}, precision=FP32)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, ROWS[0])]
    assert world.store.written == [quarantine_key(world.job, 0), shard_key(world.job, 0, FP16)]
    assert world.published == []
    assert world.progress.rows_by_precision == {"fp32": 3}
    assert world.progress.count("rows_quarantined") == 1


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
        found = read_embeddings(file, world.manifest.form)
    order = {name: PRECISION_CODES[name] for name in ("none", FP16, SELECTIVE, FP32)}
    expected = [SELECTIVE, FP32, FP16, FP16, "none", FP16]
    assert found.precision.tolist() == [order[name] for name in expected]


def test_a_retry_that_cannot_be_queued_is_left_to_whoever_looks_after_lost_work(
    world, batch, caplog
):
    world.runner(FakeEngine({0: [FP16]}), publish=refuse).run(batch)
    assert "The retry of batch 0 could not be queued: gone" in caplog.text
    assert [(b.index, b.rung) for b in world.outstanding()] == [(0, SELECTIVE), (1, FP16)]


def test_a_retry_is_passed_on_even_if_the_ledger_says_it_has_the_result(world, batch, monkeypatch):
    """A client sends again what was not answered; the second answer is that it is known."""
    complete = world.ledger.complete

    def complete_twice(result: BatchResult, *, owner: str) -> bool:
        assert complete(result, owner=owner)
        return complete(result, owner=owner)

    monkeypatch.setattr(world.ledger, "complete", complete_twice)
    world.runner(FakeEngine({0: [FP16]})).run(batch)
    assert [(b.index, b.rung, b.records) for b in world.published] == [(0, SELECTIVE, 1)]
    assert world.progress.count("batches_at_fp16") == 1


# --- a retry of what is not to be retried -------------------------------------------------------


def test_a_retry_whose_result_before_is_gone_is_dropped_and_not_held(world):
    """The ledger was made anew: it knows nothing of the rows, and begins with the rung before."""
    engine = FakeEngine({0: [FP16]})
    retry = run_first_rung(world, engine)
    world.ledger.forget(world.job)
    world.ledger.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
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
    world.ledger.forget(world.job)
    world.ledger.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
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
    world.ledger.forget(world.job)
    world.ledger.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
    engine = FakeEngine({1: [FP16], 2: [FP16]})
    assert run_first_rung(world, engine).records == 2
    world.runner(engine).run(retry)
    assert engine.calls == [(SELECTIVE, [1, 2])]
    assert world.results == []
    assert world.progress.rows_by_precision == {"fp16": 2, "selective_fp32": 2}


# --- a job that stops at the first instability --------------------------------------------------


def test_a_job_that_is_to_stop_stops_and_keeps_what_is_finite(world, batch):
    world.ledger.resume(world.job, "fail")
    world.runner(FakeEngine({0: [FP16], 2: [FP16]})).run(batch)
    assert world.progress.state is JobState.STOPPED
    assert world.shard(0).rows.tolist() == [1, 3]
    assert world.progress.rows_by_precision == {"fp16": 2}
    assert world.published == []
    (result,) = world.results
    assert (result.status, result.next) == (Status.NUMERICAL_INSTABILITY, SELECTIVE)
    assert result.stops_job


def test_a_job_that_stopped_is_left_alone(world, batch):
    world.ledger.resume(world.job, "fail")
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
    world.ledger.resume(world.job, "fail")
    retry = retry_of(batch, stop(world, {0: [FP16], 2: [FP16]}))
    world.ledger.resume(world.job, "retry")
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
    world.ledger.resume(world.job, "fail")
    engine = FakeEngine({0: [FP16]}, during=lambda: world.ledger.resume(world.job, "retry"))
    world.runner(engine).run(batch)
    assert world.progress.state is JobState.OPEN
    assert [retry.rung for retry in world.published] == [SELECTIVE]


@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_a_retry_that_does_not_help_stops_the_job_only_if_it_is_still_to_stop(world, policy):
    engine = FakeEngine({0: [FP16, SELECTIVE]})
    retry = run_first_rung(world, engine)
    world.ledger.resume(world.job, policy)
    world.runner(engine).run(retry)
    assert (world.progress.state is JobState.STOPPED) == (policy == "fail")
    assert len(world.published) == (policy == "retry")
    assert [(b.index, b.rung) for b in world.outstanding()] == [(0, FP32), (1, FP16)]


def test_a_row_that_no_rung_could_embed_stops_the_job_and_is_on_record(world, batch):
    world.ledger.resume(world.job, "fail")
    world.runner(FakeEngine({0: [FP32]}, precision=FP32)).run(batch)
    assert world.progress.state is JobState.STOPPED
    assert [bad.row for bad in read_quarantine(world.store, world.job, 0)] == [0]
    world.ledger.resume(world.job, "retry")
    assert world.outstanding() == [world.manifest.batch(1)]


# --- not ours -----------------------------------------------------------------------------------


def lease_taken_over(world: World, batch: Batch) -> None:
    world.take_over(batch)


def lease_taken_back(world: World, batch: Batch) -> None:
    world.lapse(batch)
    world.ledger.expire_leases(batch.job)


def done_by_another(world: World, batch: Batch) -> None:
    world.take_over(batch)
    world.ledger.complete(ok(batch), owner="other")


@pytest.mark.parametrize("lost", [lease_taken_over, lease_taken_back, done_by_another])
@pytest.mark.parametrize("bad", [{}, {0: [FP16]}, {0: [FP32]}], ids=["finite", "not", "never"])
def test_a_late_owner_writes_nothing_and_reports_nothing(world, batch, lost, bad, caplog):
    precision = FP32 if bad == {0: [FP32]} else FP16
    states: list[object] = []

    def lose_the_batch() -> None:
        lost(world, batch)
        states.append(state_of(world))

    engine = FakeEngine(bad, precision=precision, during=lose_the_batch)
    runner = world.runner(engine)
    with caplog.at_level(logging.INFO):
        runner.run(batch)
    assert state_of(world) == states[0]
    assert world.store.written == world.published == runner.stopping.waits == []
    assert "Batch 0 of job-0123456789ab is dropped: taken over, or cancelled" in caplog.text
    assert "Numerical instability" not in caplog.text


def state_of(world: World) -> dict[str, bytes]:
    """All that Redis holds."""
    return {key: world.ledger.redis.dump(key) for key in world.ledger.redis.keys()}  # noqa: SIM118


def test_a_lease_that_ran_out_and_that_nobody_took_is_still_ours(world, batch):
    world.runner(FakeEngine(during=lambda: world.lapse(batch))).run(batch)
    assert world.progress.rows_by_precision == {"fp16": 4}


@pytest.mark.parametrize("error", [UserError("no"), ValueError("no")])
def test_a_late_owner_s_failure_does_not_count(world, batch, error):
    def lose_the_batch_and_fail() -> None:
        world.take_over(batch)
        raise error

    world.runner(FakeEngine(during=lose_the_batch_and_fail)).run(batch)
    assert world.progress.batches_done == 0
    assert world.results == []
    assert world.ledger.renew(batch, owner="other")


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.STOPPED])
def test_a_batch_of_a_job_that_does_not_go_on_is_left_alone(world, batch, state, caplog):
    world.ledger.redis.hset(job_key(world.job), "state", state)
    engine = FakeEngine()
    with caplog.at_level(logging.INFO):
        world.runner(engine).run(batch)
    assert engine.calls == []
    assert f"Batch 0 of {world.job} is left alone: {state}." in caplog.text


def test_a_batch_that_is_done_or_held_by_another_is_left_alone(world, batch):
    world.runner().run(batch)
    world.claim(world.manifest.batch(1))
    world.store.written.clear()
    for index in (0, 1):
        engine = FakeEngine()
        world.runner(engine).run(world.manifest.batch(index))
        assert engine.calls == []
    assert world.store.written == []


def test_a_batch_of_another_model_or_of_other_weights_goes_back_after_a_pause(world, batch):
    """Those who can do it should find it."""
    stranger = batch.model_copy(update={"model": "esm2_t33_650M_UR50D"})
    world.ledger.pin_weights(world.job, "others")
    for message, reason in ((stranger, "this worker serves random:"), (batch, "other weights")):
        engine = FakeEngine()
        runner = world.runner(engine)
        with pytest.raises(GiveBackError, match=reason):
            runner.run(message)
        assert engine.calls == []
        assert runner.stopping.waits == [LEAVE_SECONDS]
    assert world.progress.leased == 0


# --- a worker that stops ------------------------------------------------------------------------


def test_a_worker_that_stops_takes_no_batch(world, batch):
    runner = world.runner()
    runner.stopping.set()
    with pytest.raises(GiveBackError, match="this worker is stopping"):
        runner.run(batch)
    assert world.progress.leased == 0
    assert world.claim(batch) == 1


def test_a_worker_that_stops_gives_back_what_it_computes(world, batch):
    runner = world.runner()
    runner.engine.during = runner.stopping.set
    with pytest.raises(GiveBackError, match="this worker is stopping"):
        runner.run(batch)
    assert world.progress.leased == 0
    assert world.shards() == world.results == []
    assert world.claim(batch) == 2


def test_a_worker_that_stops_does_not_wait_for_its_store(world, batch):
    world.store.failures["create"] = 1
    runner = world.runner()
    wait = runner.stopping.wait
    runner.stopping.wait = lambda seconds: runner.stopping.set() or wait(seconds)
    with pytest.raises(GiveBackError, match="this worker is stopping"):
        runner.run(batch)
    assert runner.stopping.waits == [STORE_RETRY_SECONDS[0]]
    assert world.progress.leased == 0
    assert world.shards() == []


# --- a store that fails -------------------------------------------------------------------------

TRIES = 1 + len(STORE_RETRY_SECONDS)
ACTIONS = ["get", "create", "put"]  # manifest and input, the shard, the quarantine


def engine_that_writes_everything() -> FakeEngine:
    return FakeEngine({0: [FP32]}, precision=FP32)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_fails_for_a_while_is_asked_again(world, batch, action, caplog):
    world.store.failures[action] = TRIES - 1
    runner = world.runner(engine_that_writes_everything())
    runner.run(batch)
    assert runner.stopping.waits == list(STORE_RETRY_SECONDS)
    assert f"did not {action}. Trying again in 1 s." in caplog.text
    assert world.progress.batches_done == 1
    assert world.progress.count("batches_failed") == 0
    assert world.shard(0).rows.tolist() == [1, 2, 3]
    assert len(read_quarantine(world.store, world.job, 0)) == 1


@pytest.mark.parametrize("action", ACTIONS)
def test_a_batch_whose_store_keeps_failing_goes_back(world, batch, action):
    world.store.failures[action] = TRIES
    runner = world.runner(engine_that_writes_everything())
    with pytest.raises(GiveBackError, match=f"attempt 1: Store .+ did not {action}"):
        runner.run(batch)
    assert world.progress.leased == 0
    assert world.progress.batches_done == 0
    assert world.outstanding()[0] == batch
    runner.run(batch)
    assert world.progress.batches_done == 1
    assert world.progress.count("batches_failed") == 0


def test_a_batch_whose_store_failed_at_every_attempt_is_reported(world, batch):
    world.store.failures["create"] = 1000
    world.use_up_attempts(batch)
    world.runner().run(batch)
    (result,) = world.results
    assert result.status is Status.FAILED
    assert result.error == f"Store {world.store.url} did not create."
    assert world.progress.leased == 0


@pytest.mark.parametrize("key_of", [manifest_key, lambda job: input_key(job, 0)])
def test_an_object_that_is_gone_is_asked_for_again_and_named(world, batch, key_of):
    world.store.delete(key_of(world.job))
    with pytest.raises(GiveBackError, match=f"has no {key_of(world.job)}"):
        world.runner().run(batch)


# --- batches that cannot be computed ------------------------------------------------------------


def failure(world: World, batch: Batch, engine: FakeEngine | None = None) -> str:
    """The error of a batch that failed, of which nothing is left."""
    world.runner(engine).run(batch)
    (result,) = world.results
    assert (result.status, result.records, result.unstable) == (Status.FAILED, 0, ())
    assert (result.next, result.stops_job, result.after) == (None, False, batch.after)
    assert world.published == []
    assert world.progress.count("batches_failed") == 1
    assert world.progress.leased == 0
    assert result.error is not None
    return result.error


def failing(error: Exception) -> FakeEngine:
    def fail() -> NoReturn:
        raise error

    return FakeEngine(during=fail)


def test_what_the_user_can_mend_fails_the_batch_with_its_message(world, batch, caplog):
    error = failure(world, batch, failing(UserError("Layer 99: this model has layers 0 to 6.")))
    assert error == "Layer 99: this model has layers 0 to 6."
    assert "Traceback" not in caplog.text
    assert world.shards() == []


def test_an_error_that_nobody_thought_of_fails_the_batch_and_is_logged_in_full(
    world, batch, caplog
):
    assert failure(world, batch, failing(ZeroDivisionError("what?"))) == "ZeroDivisionError: what?"
    assert f"Batch 0 of {world.job} failed." in caplog.text
    assert "Traceback" in caplog.text


def test_a_failure_does_not_stop_a_job_that_is_to_stop_at_instability(world, batch):
    world.ledger.resume(world.job, "fail")
    failure(world, batch, failing(ValueError("no")))
    assert world.progress.state is JobState.OPEN


def test_an_input_of_another_alphabet_is_refused_with_the_reason(world_of):
    world = world_of([4], alphabet="dna")
    error = failure(world, world.manifest.batch(0))
    assert error.startswith(
        "The input was read as dna, but random:esm2_t6_8M_UR50D is ESM-2 and takes "
        "protein. Submit from a machine that sees the model's folder"
    )
    assert world.shards() == []


def test_an_input_object_with_fewer_records_than_the_message_says_is_refused(world, batch):
    message = batch.model_copy(update={"records": 5})
    error = failure(world, message)
    assert error == f"ValueError: {input_key(world.job, 0)} has 4 of 5 records"


def test_a_retry_whose_rows_are_not_in_the_input_object_is_refused(world, batch):
    engine = FakeEngine({0: [FP16], 2: [FP16]})
    retry = run_first_rung(world, engine)
    world.store.put(retry.key, world.store.get(input_key(world.job, 1)))
    world.runner(engine).run(retry)
    assert engine.calls == []
    assert world.results[-1].error == f"ValueError: {retry.key} has 0 of 2 records"
    assert world.results[-1].after is FP16


# --- a device that is lost ----------------------------------------------------------------------


class EndedError(BaseException):
    """The process has ended."""


@pytest.fixture
def exits(monkeypatch) -> list[int]:
    """The codes that the process ended with."""
    codes: list[int] = []

    def end(code: int) -> NoReturn:
        codes.append(code)
        raise EndedError

    monkeypatch.setattr(os, "_exit", end)
    return codes


def test_a_process_whose_device_is_lost_gives_its_batch_back_and_ends(world, batch, exits, caplog):
    runner = world.runner(failing(DeviceLostError("CUDA error: an illegal memory access")))
    with pytest.raises(EndedError):
        runner.run(batch)
    assert exits == [EXIT_DEVICE_LOST]
    assert "The device is lost (CUDA error: an illegal memory access)" in caplog.text
    assert world.progress.leased == 0
    assert world.outstanding()[0] == batch
    assert world.claim(batch) == 2


def test_a_batch_that_lost_the_device_at_every_attempt_is_reported(world, batch, exits):
    world.use_up_attempts(batch)
    with pytest.raises(EndedError):
        world.runner(failing(DeviceLostError("CUDA error"))).run(batch)
    assert exits == [EXIT_DEVICE_LOST]
    (result,) = world.results
    assert (result.status, result.error) == (Status.FAILED, "DeviceLostError: CUDA error")
    assert world.progress.leased == 0


# --- a ledger that does not answer --------------------------------------------------------------


def test_a_batch_that_could_not_be_claimed_goes_back_at_once(world, batch, monkeypatch):
    monkeypatch.setattr(world.ledger, "claim", refuse)
    runner = world.runner()
    with pytest.raises(GiveBackError, match="the ledger did not answer: gone"):
        runner.run(batch)
    assert runner.stopping.waits == []
    assert world.store.written == []


@pytest.mark.parametrize("call", ["result", "renew", "stops_at_instability", "complete"])
def test_a_batch_goes_back_when_its_lease_is_over_if_the_ledger_is_gone(world, monkeypatch, call):
    """Before, it would be dropped as held by another; after, whoever takes it can claim it."""
    bad = {0: [FP16, SELECTIVE]}
    retry = run_first_rung(world, FakeEngine(bad))
    runner = world.runner(FakeEngine(bad))
    with monkeypatch.context() as patch:
        patch.setattr(world.ledger, call, refuse)
        with pytest.raises(GiveBackError, match="the ledger did not answer: gone"):
            runner.run(retry)
    assert runner.stopping.waits == [LEASE_SECONDS]
    assert world.published == []
    assert world.progress.count("batches_at_selective_fp32") == 0
    world.lapse(retry)
    world.runner(FakeEngine(bad)).run(retry)
    assert world.progress.count("batches_at_selective_fp32") == 1
    assert [(b.rung, b.records) for b in world.published] == [(FP32, 1)]


def test_a_result_that_was_counted_but_not_answered_is_not_computed_again(
    world, batch, monkeypatch
):
    complete, engine = world.ledger.complete, FakeEngine({0: [FP16]})

    def complete_and_go(result: BatchResult, *, owner: str) -> bool:
        complete(result, owner=owner)
        raise RedisError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.ledger, "complete", complete_and_go)
        with pytest.raises(GiveBackError):
            world.runner(engine).run(batch)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, ROWS[0])]
    # Whoever looks after lost work finds the retry.
    assert [(b.index, b.rung) for b in world.outstanding()] == [(0, SELECTIVE), (1, FP16)]


# --- a line in the log --------------------------------------------------------------------------


def test_a_line_says_what_became_of_a_batch(world, batch, caplog):
    with caplog.at_level(logging.INFO):
        engine = FakeEngine({0: [FP16], 2: NEVER})
        world.runner(engine).run(batch)
        world.runner(engine).run(world.published.pop())
        world.runner(engine).run(world.published.pop())
    lines = [text for text in caplog.messages if " sequences in " in text]
    assert lines == [
        f"Batch 0 of {world.job}: 2 sequences in fp16, 24 tokens in 0.25 s, 2 not finite: on to "
        "selective_fp32.",
        f"Batch 0 of {world.job}: 1 sequences in selective_fp32, 12 tokens in 0.25 s, 1 not "
        "finite: on to fp32.",
        f"Batch 0 of {world.job}: 0 sequences in fp32, 0 tokens in 0.25 s, 1 not finite: "
        "quarantined.",
    ]


def test_the_line_of_a_failure_has_its_error(world, batch):
    failure(world, batch, failing(ValueError("no")))
    assert summary(world.results[0]) == "failed, ValueError: no"
