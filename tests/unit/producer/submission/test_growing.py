"""A large input: its first batches are queued, and may be done, while later ones are staged."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.errors import InputError, JobEndedError, NotReadyError
from common.job.layout import manifest_key, opening_key
from common.job.manifest import Manifest, read_manifest, write_manifest
from common.job.opening import find_opening, read_manifest_so_far, write_opening
from common.job.records import Record
from common.ledger.claims import ClaimOutcome
from common.ledger.keys import job_key
from common.ledger.ledger import Ledger
from common.ledger.locks import staging_key
from common.ledger.progress import JobState, Progress
from common.ledger.workers import WorkerInfo
from common.store import FileStore
from common.wire.celery_app import make_celery
from common.wire.messages import Batch, Status
from producer.fleet.fleet import Fleet
from producer.input.source import Source
from producer.scheduling import unstaged
from producer.scheduling.closed import read_closed
from producer.scheduling.deletion import delete_job
from producer.scheduling.job_lock import JobLockedError, job_lock
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import open_job
from producer.scheduling.publisher import Publisher
from producer.submission import growing, staging
from producer.submission.input_keys import InputKeys
from producer.submission.request import Request, job_name, make_request
from producer.submission.staging import delete_leftovers
from producer.submission.submit import Hardware, Submission, submit
from tests.support.jobs import failed, manifest_of, ok, unstable
from tests.support.ledgers import QUEUE
from tests.support.shards import store_inputs, store_shard
from tests.support.staged import messages
from tests.support.stores import folder_store

MODEL = "esm2_t6_8M_UR50D"
BATCHES, ROWS = 6, 12


@dataclass
class World:
    """A store and a ledger, and what is done after each batch that was staged."""

    store: FileStore
    ledger: Ledger
    publisher: Publisher
    request: Request
    on_staged: dict[int, Callable[[], object]] = field(default_factory=dict)

    @property
    def job(self) -> str:
        return job_name(self.request.source, self.request.fingerprint())

    @property
    def progress(self) -> Progress:
        progress = self.ledger.jobs.progress(self.job)
        assert progress is not None
        return progress

    def submit(self) -> Submission:
        return submit(
            *(self.request, self.store, self.ledger, self.publisher),
            hardware=Hardware(on_gpu=True, workers=1),
            tokens=20,
            on_staged=lambda _records, batches: self.on_staged.get(batches, lambda: None)(),
        )

    def queued(self) -> list[Batch]:
        return messages(self.ledger.redis, f"{MODEL}.fp16")

    def work(self) -> None:
        """Compute all that is queued, as workers do."""
        for batch in self.queued():
            self.compute(batch)

    def compute(self, batch: Batch) -> None:
        claim = self.ledger.leases.claim(batch, owner="w", weights="w")
        if claim.outcome is ClaimOutcome.TAKEN:
            store_shard(self.store, read_manifest_so_far(self.store, batch.job), batch.index)
            self.ledger.results.complete(ok(batch), owner="w")


@pytest.fixture
def world(ledger, redis_url, tmp_path, monkeypatch) -> World:
    monkeypatch.setattr(growing, "PORTION_SECONDS", 0.0)
    monkeypatch.setattr(growing, "MOST_OF_TIME", 1e9)
    publisher = Publisher(ledger, make_celery(redis_url, []), high_water=1000)
    return World(
        folder_store(tmp_path / "store"),
        ledger,
        publisher,
        make_request(Source(str(proteins(tmp_path))), MODEL, dedup=False),
    )


def proteins(folder: Path, *, rows: int = ROWS, length: int = 8, last: str = "MKTAYIAK") -> Path:
    """Write proteins; two of eight residues are a batch."""
    fasta = folder / "p.fasta"
    records = ["MKTAYIAK" * (length // 8)] * (rows - 1) + [last]
    fasta.write_text("".join(f">p{row}\n{letters}\n" for row, letters in enumerate(records)))
    return fasta


def is_gone(world: World) -> bool:
    return not list(world.store.keys("")) and world.ledger.jobs.names() == []


def test_batches_are_queued_and_computed_before_the_last_record_is_read(world):
    done: list[int] = []

    def work() -> None:
        world.work()
        done.append(world.progress.batches_done)

    world.on_staged = dict.fromkeys(range(1, BATCHES + 1), work)
    world.on_staged[1] = lambda: None
    submission = world.submit()
    assert done == [1, 2, 3, 4, 5]
    assert (submission.left, submission.manifest.batches) == (1, BATCHES)
    world.work()
    assert world.progress.finished
    assert sorted(batch.index for batch in world.queued()) == list(range(BATCHES)), "each once"


def test_a_job_of_which_all_so_far_is_done_is_finished_once_it_is_staged(world):
    seen: list[Progress] = []

    def finish_early() -> None:
        world.work()
        seen.append(world.progress)

    world.on_staged[4] = finish_early
    submission = world.submit()
    (progress,) = seen
    assert (progress.batches_done, progress.batches) == (3, 3)
    assert (progress.state, progress.eta) == (JobState.STAGING, None)
    world.work()
    progress = world.progress
    assert progress.finished
    assert (progress.batches, progress.records) == (BATCHES, ROWS)
    assert progress.tokens == submission.manifest.tokens
    assert progress.created == submission.manifest.created.timestamp()
    assert find_opening(world.store, world.job) is None


def test_a_job_that_is_done_when_its_last_batch_is_staged_is_finished_at_once(world, monkeypatch):
    grow = growing.GrowingJob.grow

    def grow_and_work(job: growing.GrowingJob, manifest_at: object) -> None:
        grow(job, manifest_at)
        world.work()

    monkeypatch.setattr(growing.GrowingJob, "grow", grow_and_work)
    assert world.submit().left == 0
    assert world.progress.finished
    assert world.progress.ended is not None


def test_the_manifest_is_the_same_as_of_a_job_that_is_opened_as_a_whole(world, monkeypatch):
    grown = world.submit().manifest
    world.ledger.jobs.forget(grown.job)
    world.store.delete(f"{grown.job}/")
    monkeypatch.setattr(growing, "PORTION_SECONDS", 1e9)
    whole = world.submit().manifest
    changes = {"created": grown.created, "staging": grown.staging}
    assert whole.model_copy(update=changes) == grown


def test_a_small_job_is_opened_as_a_whole(world, monkeypatch):
    monkeypatch.setattr(growing, "PORTION_SECONDS", 60.0)
    known: list[object] = []
    world.on_staged[BATCHES] = lambda: known.append(
        (world.ledger.jobs.names(), list(world.store.keys(opening_key(world.job))))
    )
    world.submit()
    assert known == [([], [])]


def worker_of(**fields: object) -> WorkerInfo:
    told = {"name": "w", "model": MODEL, "weights": "w", "device": "CPU", "precision": "fp16"}
    return WorkerInfo.model_validate({**told, "queues": [f"{MODEL}.fp16"], **fields})


@pytest.mark.parametrize(
    ("workers", "grows"),
    [
        ([worker_of(staging=True)], True),
        ([worker_of(staging=True), worker_of(name="old")], False),
        ([worker_of(name="old", queues=["other.fp16"])], True),
    ],
    ids=["of this version", "one of an earlier version", "an earlier one of another queue"],
)
def test_a_job_is_opened_as_a_whole_if_a_worker_needs_its_manifest(world, workers, grows):
    for worker in workers:
        world.ledger.workers.announce(worker)
    known: list[bool] = []
    world.on_staged[BATCHES] = lambda: known.append(world.job in world.ledger.jobs.names())
    world.submit()
    assert known == [grows]


def test_a_job_that_takes_over_rows_is_opened_as_a_whole(world):
    """Workers with other weights must not begin it, and its weights may be known late."""
    world.request = make_request(world.request.source, MODEL, dedup=False, reuse=True)
    known: list[list[str]] = []
    world.on_staged[BATCHES] = lambda: known.append(world.ledger.jobs.names())
    world.submit()
    assert known == [[]]


@pytest.mark.parametrize("retried", [False, True], ids=["", "with rows that were retried"])
def test_nothing_is_left_of_a_job_whose_last_record_is_bad(world, tmp_path, monkeypatch, retried):
    fasta = proteins(tmp_path, rows=3000, length=80, last="MKT1")  # read in parts
    world.request = make_request(Source(str(fasta)), MODEL, dedup=False)
    claimed: list[Batch] = []

    def work() -> None:
        first, *others = world.queued()
        claimed.append(others[-1])
        world.ledger.leases.claim(claimed[0], owner="busy", weights="w")
        if retried:
            world.ledger.results.complete(unstable(first))
        world.work()
        assert any(key.endswith(".h5") for key in world.store.keys(""))
        monkeypatch.setattr(growing.GrowingJob, "is_due", lambda _job: False)

    world.on_staged[5] = work
    with pytest.raises(InputError, match="record 3000"):
        world.submit()
    assert is_gone(world)
    assert not world.ledger.leases.renew(claimed[0], owner="busy"), "its worker drops it"
    answers = [world.ledger.leases.claim(b, owner="w", weights="w") for b in world.queued()]
    assert {answer.outcome for answer in answers} == {ClaimOutcome.UNKNOWN}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_is_left_of_a_job_whose_staging_was_interrupted(world, error):
    def interrupt() -> None:
        raise error

    world.on_staged[5] = interrupt
    with pytest.raises(error):
        world.submit()
    assert is_gone(world)


def test_a_job_that_is_cancelled_while_it_is_staged_ends_its_staging(world):
    world.on_staged[3] = lambda: world.ledger.jobs.cancel(world.job)
    with pytest.raises(JobEndedError, match="was cancelled while its input was staged"):
        world.submit()
    assert is_gone(world)


def test_a_job_that_is_cancelled_as_soon_as_redis_knows_it_ends_its_staging(world, monkeypatch):
    create = world.ledger.jobs.create

    def create_and_cancel(*given: Any, **options: Any) -> bool:
        created = create(*given, **options)
        world.ledger.jobs.cancel(world.job)
        return created

    monkeypatch.setattr(world.ledger.jobs, "create", create_and_cancel)
    with pytest.raises(JobEndedError, match="was cancelled while its input was staged"):
        world.submit()
    assert is_gone(world)


@pytest.fixture
def growing_no_more(world, monkeypatch) -> Callable[[], None]:
    """Has the batches so far computed, and those to come added at the end."""

    def stop() -> None:
        world.work()
        monkeypatch.setattr(growing.GrowingJob, "is_due", lambda _job: False)

    return stop


def test_a_job_that_is_cancelled_after_its_last_portion_is_dropped_too(world, growing_no_more):
    world.on_staged = {4: growing_no_more, BATCHES: lambda: world.ledger.jobs.cancel(world.job)}
    with pytest.raises(JobEndedError, match="was cancelled while its input was staged"):
        world.submit()
    assert is_gone(world)


@pytest.mark.parametrize("state", [JobState.STOPPED, JobState.CANCELLED])
@pytest.mark.parametrize("ends", [True, False], ids=["", "its producer ends before it knows"])
def test_a_job_that_was_closed_at_the_end_of_its_staging_is_resumed_with_all_batches(
    world, growing_no_more, monkeypatch, state, ends
):
    """Not with those of the last portion, which are done."""
    world.on_staged[4] = growing_no_more
    finish = growing.GrowingJob.finish

    def close_and_finish(job: growing.GrowingJob, manifest: Manifest) -> int:
        so_far = {"state": str(state), "batches": 3, "records": 6}  # Redis lost its last second
        world.ledger.redis.hset(job_key(manifest.job), mapping=so_far)
        if ends:
            raise KeyboardInterrupt
        return finish(job, manifest)

    monkeypatch.setattr(growing.GrowingJob, "finish", close_and_finish)
    with pytest.raises(KeyboardInterrupt) if ends else nullcontext():
        world.submit()
    manifest = read_manifest(world.store, world.job)
    assert world.progress.state is state
    left = open_job(world.store, world.ledger, world.publisher, manifest)
    assert (left, world.progress.state) == (BATCHES - 3, JobState.OPEN)
    world.work()
    assert (world.progress.finished, world.progress.batches_done) == (True, BATCHES)


def test_a_job_that_stops_at_an_instability_is_staged_to_its_end(world):
    world.request = make_request(world.request.source, MODEL, dedup=False, on_instability="fail")
    stop = lambda: world.ledger.results.complete(unstable(world.queued()[0], stops_job=True))  # noqa: E731
    world.on_staged[3] = stop
    manifest = world.submit().manifest
    assert world.progress.state is JobState.STOPPED
    assert world.progress.batches == BATCHES
    assert read_manifest(world.store, world.job) == manifest


def test_a_redis_that_is_emptied_while_a_job_is_staged_is_told_again(world):
    world.on_staged[3] = world.work
    world.on_staged[4] = lambda: world.ledger.redis.flushall()
    submission = world.submit()
    assert submission.left == BATCHES - 2, "the store has two"
    Keeper(world.store, world.ledger, world.publisher).step()
    world.work()
    assert world.progress.finished


def test_a_redis_that_does_not_answer_when_a_job_is_to_be_opened_is_asked_again(world, monkeypatch):
    now, answers = world.ledger.now, count()

    def now_but_once() -> datetime:
        if next(answers) == 0:
            raise RedisConnectionError
        return now()

    monkeypatch.setattr(world.ledger, "now", now_but_once)
    known: list[list[str]] = []
    world.on_staged = dict.fromkeys([2, 3], lambda: known.append(world.ledger.jobs.names()))
    world.submit()
    assert known == [[], [world.job]]


def test_a_redis_that_is_emptied_at_the_end_is_told_again(world, monkeypatch):
    world.on_staged[3] = world.work
    finish = growing.GrowingJob.finish

    def empty_and_finish(job: growing.GrowingJob, manifest: Manifest) -> int:
        world.ledger.redis.flushall()
        return finish(job, manifest)

    monkeypatch.setattr(growing.GrowingJob, "finish", empty_and_finish)
    assert world.submit().left == BATCHES - 2
    world.work()
    assert world.progress.finished


def test_a_job_with_a_batch_that_failed_meanwhile_says_so_in_the_end(world):
    world.on_staged[3] = lambda: world.ledger.results.complete(failed(world.queued()[0]))
    world.submit()
    world.work()
    assert world.progress.batches_failed == 1
    assert world.ledger.results.all(world.job)[0].status is Status.FAILED


def test_a_job_that_is_being_staged_is_named_as_such(world):
    messages: list[str] = []

    def ask() -> None:
        fleet = Fleet(store=world.store.url)
        with pytest.raises(NotReadyError) as caught:
            assert fleet.job(world.job).manifest
        messages.append(str(caught.value))

    world.on_staged[3] = ask
    world.submit()
    assert "is still being staged" in messages[0]
    assert "job.status()" in messages[0]


def test_a_job_that_another_producer_has_staged_meanwhile_is_taken_as_it_is(world):
    """One that stood still, and lost its lock, must not open the job again."""
    others = manifest_of([5, 7], job=world.job)

    def stage_by_another() -> None:
        write_manifest(world.store, others)
        world.ledger.jobs.create(others, QUEUE)

    world.on_staged[1] = stage_by_another
    assert world.submit().manifest == others
    assert (world.progress.state, world.progress.batches) == (JobState.OPEN, 2)


def deleted_by_a_keeper(world: World) -> None:
    world.ledger.redis.delete(staging_key(world.job))  # it expired
    with job_lock(world.ledger, world.job) as hold:
        delete_job(world.store, world.ledger, world.job, hold, created=world.progress.created)


def opened_by_another(world: World) -> None:
    world.ledger.redis.delete(staging_key(world.job))
    part = read_manifest_so_far(world.store, world.job)
    others = manifest_of([5], job=world.job, created=part.created + timedelta(seconds=1))
    with job_lock(world.ledger, world.job):
        write_opening(world.store, others)
        world.ledger.jobs.create(others, QUEUE, staging=True)


@pytest.mark.parametrize("meanwhile", [deleted_by_a_keeper, opened_by_another])
def test_a_producer_that_stood_still_adds_nothing_to_a_job_that_is_not_its_own(world, meanwhile):
    """Its next portion comes before it writes another batch, which would tell it."""
    kept: list[object] = []

    def seen() -> object:
        return find_opening(world.store, world.job), world.ledger.jobs.states()

    world.on_staged[3] = lambda: (meanwhile(world), kept.append(seen()))
    with pytest.raises(JobLockedError, match="by another producer"):
        world.submit()
    assert [seen()] == kept


# --- a producer that is gone --------------------------------------------------------------------


@pytest.fixture
def abandoned(world) -> World:
    """What a producer leaves that ends in the middle: a part of a job, and no lock."""
    records = [Record(row, f"p{row}", "MKTAYIAK") for row in range(4)]
    part = store_inputs(world.store, manifest_of([2, 2], job=world.job), records)
    write_opening(world.store, part)
    store_shard(world.store, part, 0)
    world.ledger.jobs.create(part, QUEUE, staging=True)
    return world


@pytest.fixture
def kept(world) -> Iterator[Keeper]:
    keeper = Keeper(world.store, world.ledger, world.publisher)
    yield keeper
    keeper.stop()


def step(keeper: Keeper, times: int = 2) -> None:
    for _ in range(times):
        keeper.next_step = 0
        keeper.step()


@pytest.mark.parametrize("cancels", [False, True], ids=["", "and whose user cancels it"])
def test_a_job_whose_producer_is_gone_for_long_is_deleted(abandoned, kept, monkeypatch, cancels):
    step(kept)
    assert abandoned.progress.state is JobState.STAGING, "it may go on"
    if cancels:
        abandoned.ledger.jobs.cancel(abandoned.job)
    monkeypatch.setattr(unstaged, "ABANDONED_SECONDS", 0.0)
    step(kept)
    assert is_gone(abandoned)


def test_only_the_time_in_which_a_keeper_looks_counts(abandoned, kept, monkeypatch):
    """Redis may be away for ten minutes, also for a producer that is at work."""
    seconds = count(1000.0, 3600.0)
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(unstaged, "time", clock)
    step(kept, times=3)
    assert abandoned.progress.state is JobState.STAGING
    seconds = count(next(seconds), 50.0)
    step(kept, times=12)
    assert abandoned.progress.state is JobState.STAGING
    step(kept)
    assert is_gone(abandoned)


def test_a_job_whose_next_producer_is_gone_too_is_deleted(abandoned, kept, monkeypatch):
    """Killed before it opened its own, whose opening would be of another time than Redis's job."""

    def end(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(staging, "delete_leftovers", lambda *given: end(delete_leftovers(*given)))
    monkeypatch.setattr(InputKeys, "delete_objects", end)  # it has no time for that
    monkeypatch.setattr(unstaged, "ABANDONED_SECONDS", 0.0)
    with pytest.raises(SystemExit):
        abandoned.submit()
    step(kept)
    assert is_gone(abandoned)


def test_a_job_whose_producer_is_at_work_stays(abandoned, kept, monkeypatch):
    monkeypatch.setattr(unstaged, "ABANDONED_SECONDS", 0.0)
    before = sorted(abandoned.store.keys(""))
    with job_lock(abandoned.ledger, abandoned.job):
        step(kept)
    assert abandoned.progress.state is JobState.STAGING
    assert sorted(abandoned.store.keys("")) == before


@pytest.mark.parametrize("opening", ["none", "an earlier one"])
def test_a_job_of_another_store_stays(abandoned, kept, monkeypatch, opening):
    monkeypatch.setattr(unstaged, "ABANDONED_SECONDS", 0.0)
    part = find_opening(abandoned.store, abandoned.job)
    assert part is not None
    if opening == "none":
        abandoned.store.delete(opening_key(part.job))
    else:
        before = part.created.replace(year=part.created.year - 1)
        write_opening(abandoned.store, part.model_copy(update={"created": before}))
    step(kept)
    assert abandoned.progress.state is JobState.STAGING


def test_a_keeper_ends_the_staging_of_a_job_that_has_its_manifest(abandoned, kept):
    step(kept)
    part = find_opening(abandoned.store, abandoned.job)
    assert part is not None
    whole = manifest_of([2, 2, 3], job=part.job, created=part.created)
    write_manifest(abandoned.store, whole)
    step(kept)
    assert find_opening(abandoned.store, abandoned.job) is None
    progress = abandoned.progress
    assert (progress.state, progress.batches, progress.records) == (JobState.OPEN, 3, 7)


def test_a_job_that_stopped_while_it_was_staged_is_marked_as_closed_afterwards(world, kept):
    """Or it would come back if Redis is emptied. It can be marked once it has its manifest."""
    world.on_staged[3] = lambda: world.ledger.results.complete(
        unstable(world.queued()[0], stops_job=True)
    )
    world.on_staged[5] = lambda: step(kept)
    world.submit()
    step(kept)
    closed = read_closed(world.store, world.job)
    assert closed is not None
    assert closed.state is JobState.STOPPED


def test_a_submit_after_a_producer_that_is_gone_begins_anew(abandoned):
    """A shard of the earlier one, and its opening, would be of other batches."""
    seen: list[list[str]] = []
    keys = abandoned.store.keys
    abandoned.on_staged[2] = lambda: seen.append(list(keys(f"{abandoned.job}/output/")))
    submission = abandoned.submit()
    assert seen == [[]]
    assert submission.left == BATCHES
    abandoned.work()
    assert abandoned.progress.finished
    (manifest,) = [key for key in keys("") if key.endswith(".json")]
    assert manifest == manifest_key(abandoned.job)
