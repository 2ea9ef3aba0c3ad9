"""The keeper: expired leases, an emptied Redis, closed jobs, and other keepers."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.exceptions import RedisError

from common.job.layout import closed_key, input_key, manifest_key
from common.job.manifest import Manifest, write_manifest
from common.ledger.claims import ClaimOutcome
from common.ledger.events import Event, EventKind
from common.ledger.progress import JobState
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.store import StoreError
from common.wire.queues import KEY_PREFIX
from producer.scheduling import keeper, old_jobs
from producer.scheduling.closed import Closed
from producer.scheduling.keeper import Keeper
from producer.scheduling.lost_messages import PATIENCE
from producer.scheduling.opening import job_queue
from tests.support.jobs import manifest_of, ok, retry_after
from tests.support.processes import wait_until
from tests.support.staged import Job, messages
from tests.support.stores import folder_store

FP16, SELECTIVE = Rung.FP16, Rung.SELECTIVE_FP32


@pytest.fixture
def staged(job) -> Job:
    """A job that is in the store, but not in Redis."""
    write_manifest(job.store, job.manifest)
    return job


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def keeper_of(staged, events) -> Callable[..., Keeper]:
    def make(**options) -> Keeper:
        options = {"store": staged.store, "on_event": events.append} | options
        return Keeper(options.pop("store"), staged.ledger, staged.publisher, **options)

    return make


@pytest.fixture
def kept(keeper_of) -> Iterator[Keeper]:
    keeper = keeper_of()
    yield keeper
    keeper.stop()


def step(keeper: Keeper, times: int = 1) -> None:
    """Do steps at once, without the pauses between them."""
    for _ in range(times):
        keeper.next_step = keeper._next_hold = keeper.lost_messages._next_look = 0
        keeper.step()


def closed(job: Job) -> JobState | None:
    try:
        return Closed.model_validate_json(job.store.get(closed_key(job.name))).state
    except StoreError:
        return None


# --- what was lost ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "requeued"), [((), True), (("theirs",), False), (("theirs", ""), True)]
)
def test_what_all_workers_refuse_is_queued_again_only_once_one_accepts_it(
    staged, kept, events, accepted, requeued
):
    """This keeper has no key: without one, its messages are refused whenever they are published."""
    staged.open()
    staged.take_all_messages()
    worker = worker_of(staged, keys=("theirs",))
    staged.ledger.workers.announce(worker)
    step(kept, 4 * PATIENCE)
    assert events == []
    assert staged.queued() == {}
    staged.ledger.workers.announce(worker.model_copy(update={"keys": accepted}))
    step(kept, 4 * PATIENCE)
    assert bool(staged.queued()) == requeued


def worker_of(job: Job, **more) -> WorkerInfo:
    queues = tuple(job.progress.queues.values())
    fields = {"name": "w", "model": "m", "weights": "w", "device": "CPU", "precision": FP16}
    return WorkerInfo(**fields, queues=queues, **more)


def test_a_batch_whose_lease_ran_out_is_queued_again_and_the_worker_named(staged, kept, events):
    staged.open()
    staged.take_all_messages()
    for index in range(3):
        staged.claim(staged.manifest.batch(index), "cuda0-1@host/0123abcd")
    step(kept)
    assert staged.queued() == {}
    staged.lapse(staged.manifest.batch(1))
    step(kept)
    assert messages(staged.ledger.redis, job_queue(staged.manifest)) == [staged.manifest.batch(1)]
    assert staged.progress.leases_lost == 1
    (event,) = events
    assert event.model_dump(exclude={"time"}) == {
        "event": EventKind.LEASE_LOST,
        "job": staged.name,
        "batch": 1,
        "rung": FP16,
        "worker": "cuda0-1@host",
        "detail": "its worker disappeared; requeued",
    }
    assert staged.ledger.events.latest(staged.name) == events
    step(kept)
    assert staged.queued() == {"fp16": 1}
    assert staged.claim(staged.manifest.batch(1), "b") is ClaimOutcome.TAKEN


@pytest.mark.parametrize("climbed", [1, 2])
def test_a_retry_whose_lease_ran_out_is_queued_again_at_its_rung(staged, kept, events, climbed):
    staged.open()
    staged.take_all_messages()
    retry = staged.manifest.batch(0)
    for _ in range(climbed):
        retry = retry_after(staged.manifest, staged.compute(retry, [3]))
    staged.claim(retry)
    staged.lapse(retry)
    step(kept)
    assert staged.queued() == {retry.rung: 1}
    assert messages(staged.ledger.redis, staged.progress.queues[retry.rung]) == [retry]
    assert [(event.batch, event.rung) for event in events] == [(0, retry.rung)]


def test_leases_at_several_rungs_that_ran_out_are_each_queued_at_theirs(staged, kept):
    staged.open()
    staged.take_all_messages()
    retry = retry_after(staged.manifest, staged.compute(staged.manifest.batch(2), [6]))
    for batch in (staged.manifest.batch(0), staged.manifest.batch(1), retry):
        staged.claim(batch)
        staged.lapse(batch)
    step(kept)
    assert staged.queued() == {"fp16": 2, "selective_fp32": 1}


def test_a_message_that_vanished_is_sent_again_with_an_event(staged, kept, events):
    staged.open()
    staged.ledger.redis.rpop(f"{KEY_PREFIX}{job_queue(staged.manifest)}")
    step(kept, PATIENCE)
    assert staged.queued() == {"fp16": 3}
    (event,) = events
    assert (event.event, event.batch, event.worker) == (EventKind.MESSAGE_LOST, 0, None)
    step(kept, PATIENCE)
    assert staged.queued() == {"fp16": 3}


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.STOPPED, JobState.FINISHED])
def test_a_job_that_is_over_has_lost_nothing(staged, kept, events, state):
    staged.open()
    staged.take_all_messages()
    staged.claim(staged.manifest.batch(0))
    staged.lapse(staged.manifest.batch(0))
    staged.ledger.redis.hset(f"{KEY_PREFIX}job:{staged.name}", "state", state)
    step(kept, 2 * PATIENCE)
    assert staged.queued() == {}
    assert events == []


def test_a_job_that_is_larger_than_the_mark_is_fed_to_its_end(job_of):
    job = job_of(high_water=1)
    write_manifest(job.store, job.manifest)
    job.open()
    kept = Keeper(job.store, job.ledger, job.publisher)
    for _ in range(3):
        assert job.queued() == {"fp16": 1}
        (batch,) = messages(job.ledger.redis, job_queue(job.manifest))
        job.take_all_messages()
        job.compute(batch)
        step(kept)
    assert job.progress.finished


def test_steps_are_a_second_apart(staged, kept):
    kept.step()
    staged.ledger.redis.flushall()
    kept.step()
    assert staged.ledger.jobs.names() == []


# --- a Redis that was wiped ---------------------------------------------------------------------


def test_a_job_that_redis_lost_goes_on_with_what_the_store_has(staged, kept):
    staged.open()
    step(kept)
    staged.compute(staged.manifest.batch(0))
    retry = retry_after(staged.manifest, staged.compute(staged.manifest.batch(1), [4]))
    staged.ledger.redis.flushall()
    step(kept)
    assert staged.progress.batches_done == 1
    assert staged.queued() == {"fp16": 1, "selective_fp32": 1}
    assert staged.outstanding() == [(1, SELECTIVE), (2, FP16)]
    assert messages(staged.ledger.redis, staged.progress.queues[SELECTIVE]) == [retry]
    staged.work()
    step(kept)
    assert staged.progress.finished
    assert closed(staged) is JobState.FINISHED


def test_a_new_keeper_on_a_new_redis_finds_the_jobs_of_its_store(staged, keeper_of):
    staged.store.put("validations/w.fp16.cpu.json", b"{}")
    staged.store.put("notes/readme.txt", b"no job")
    step(keeper_of())
    assert staged.ledger.jobs.names() == [staged.name]
    assert staged.queued() == {"fp16": 3}


def test_a_store_is_searched_once(staged, kept):
    step(kept)
    staged.ledger.jobs.forget(staged.name)
    step(kept)
    assert staged.ledger.jobs.names() == []


def test_a_store_that_fails_is_searched_again(staged, kept, monkeypatch):
    def fail() -> Iterator[str]:
        raise StoreError("503.")

    with monkeypatch.context() as patched:
        patched.setattr(staged.store, "folders", fail)
        with pytest.raises(StoreError):
            step(kept)
    step(kept)
    assert staged.ledger.jobs.names() == [staged.name]


def test_a_job_whose_manifest_is_damaged_does_not_keep_others_waiting(staged, kept, caplog):
    staged.store.put(manifest_key("a-broken-one"), b"{")
    step(kept)
    assert staged.ledger.jobs.names() == [staged.name]
    assert "Job a-broken-one is skipped: " in caplog.text
    assert "and submit the input again" in caplog.text


def test_a_batch_that_cannot_be_counted_is_computed_anew(staged, kept):
    """Without its input the missing rows of a shard are unknown; the worker reports that."""
    staged.shard(0, FP16, [1])
    staged.shard(1)
    staged.store.delete(input_key(staged.name, 0))
    step(kept, 2)
    assert staged.progress.batches_done == 1
    assert staged.outstanding() == [(0, FP16), (2, FP16)]


def test_a_manifest_that_is_damaged_while_its_job_runs_does_not_end_the_keeper(
    staged, kept, caplog
):
    staged.open()
    staged.store.put(manifest_key(staged.name), b"{")
    step(kept, 3)
    assert caplog.text.count("is damaged") == 1


def test_a_watch_finds_its_own_job_and_no_other(staged, keeper_of):
    write_manifest(staged.store, manifest_of([1], job="other"))
    watching = keeper_of(only=staged.name)
    step(watching)
    assert staged.ledger.jobs.names() == [staged.name]
    staged.ledger.redis.flushall()
    step(watching)
    assert staged.ledger.jobs.names() == [staged.name]


def test_a_watch_finds_its_own_job_even_if_another_one_acts(staged, keeper_of):
    first, second = keeper_of(only="other"), keeper_of(only=staged.name)
    step(first)
    step(second)
    assert (first.acting, second.acting) == (True, False)
    assert staged.ledger.jobs.names() == [staged.name]


# --- jobs that are over -------------------------------------------------------------------------


def test_a_job_that_is_finished_is_noted_so_in_the_store_and_stays_so_after_a_wipe(staged, kept):
    staged.open()
    step(kept)
    assert closed(staged) is None
    staged.work()
    step(kept)
    assert closed(staged) is JobState.FINISHED
    staged.ledger.redis.flushall()
    step(kept)
    assert staged.ledger.jobs.names() == []


def test_a_job_that_was_cancelled_does_not_come_back_until_it_is_submitted_again(staged, kept):
    staged.open()
    step(kept)
    staged.ledger.jobs.cancel(staged.name)
    step(kept)
    assert closed(staged) is JobState.CANCELLED
    staged.ledger.redis.flushall()
    step(kept)
    assert staged.ledger.jobs.names() == []
    assert staged.open() == 3
    step(kept)
    assert closed(staged) is None
    staged.ledger.redis.flushall()
    step(kept)
    assert staged.ledger.jobs.names() == [staged.name]


def test_a_job_that_stopped_at_an_instability_is_noted_so(staged, kept):
    staged.open("fail")
    staged.ledger.redis.hset(f"{KEY_PREFIX}job:{staged.name}", "state", JobState.STOPPED)
    step(kept)
    assert closed(staged) is JobState.STOPPED
    staged.ledger.jobs.cancel(staged.name)
    step(kept)
    assert closed(staged) is JobState.CANCELLED


def test_a_mark_that_cannot_be_read_is_made_anew(staged, kept):
    staged.open()
    staged.ledger.jobs.cancel(staged.name)
    staged.store.put(closed_key(staged.name), b"{")
    step(kept)
    assert closed(staged) is JobState.CANCELLED


def test_a_mark_is_written_once(staged, kept):
    staged.open()
    staged.work()
    step(kept)
    first = staged.store.get(closed_key(staged.name))
    step(kept, 3)
    assert staged.store.get(closed_key(staged.name)) == first


# --- several keepers ----------------------------------------------------------------------------


def test_one_keeper_acts_and_another_takes_over_when_it_stops(keeper_of):
    first, second = keeper_of(), keeper_of()
    step(first)
    step(second)
    assert (first.acting, second.acting) == (True, False)
    first.stop()
    step(second)
    step(first)
    assert (first.acting, second.acting) == (False, True)


def test_a_keeper_that_went_away_is_followed_by_another_when_its_hold_ends(staged, keeper_of):
    first, second = keeper_of(), keeper_of()
    step(first)
    (key,) = staged.ledger.redis.keys(f"{KEY_PREFIX}keeper:*")
    assert 0 < staged.ledger.redis.ttl(key) <= 15
    staged.ledger.redis.delete(key)  # as if the time were over
    step(second)
    assert second.acting


def test_the_stop_of_one_that_does_not_act_changes_nothing(keeper_of):
    first, second = keeper_of(), keeper_of()
    step(first)
    second.stop()
    step(second)
    step(first)
    assert (first.acting, second.acting) == (True, False)


def test_a_watch_leaves_its_place_to_a_real_keeper(staged, keeper_of):
    watching, real = keeper_of(only=staged.name), keeper_of()
    step(watching)
    assert watching.acting
    step(real)
    step(watching)
    assert (watching.acting, real.acting) == (False, True)
    real.stop()
    step(watching)
    assert watching.acting


def test_the_first_of_two_watches_acts_for_the_jobs_of_both(staged, keeper_of):
    staged.open()
    staged.take_all_messages()
    staged.claim(staged.manifest.batch(0))
    staged.lapse(staged.manifest.batch(0))
    first, second = keeper_of(only="other"), keeper_of(only=staged.name)
    step(first)
    step(second)
    assert staged.queued() == {"fp16": 1}


def test_keepers_of_two_stores_both_act(keeper_of, tmp_path):
    first, second = keeper_of(), keeper_of(store=folder_store(tmp_path / "another"))
    step(first)
    step(second)
    assert first.acting
    assert second.acting


# --- jobs of other stores, and jobs that are staged anew ----------------------------------------


def test_a_job_of_another_store_is_left_alone(staged, keeper_of, tmp_path, events):
    staged.open()
    staged.take_all_messages()
    staged.claim(staged.manifest.batch(0))
    staged.lapse(staged.manifest.batch(0))
    store = folder_store(tmp_path / "another")
    other = keeper_of(store=store)
    step(other, 2 * PATIENCE)
    assert staged.queued() == {}
    staged.ledger.jobs.cancel(staged.name)
    step(other)
    assert events == []
    assert list(store.keys("")) == []


def anew(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"created": manifest.created + timedelta(hours=1)})


def test_the_same_input_in_two_stores_is_two_jobs_of_which_redis_knows_the_last(
    staged, keeper_of, tmp_path
):
    """They have one name: the first store's keeper must not send the second's batches."""
    store, later = folder_store(tmp_path / "another"), anew(staged.manifest)
    write_manifest(store, later)
    staged.open()
    first, second = keeper_of(), keeper_of(store=store)
    step(first)
    staged.ledger.jobs.create(later, job_queue(later))
    staged.take_all_messages()
    step(first, 2 * PATIENCE)
    assert staged.queued() == {}
    step(second)
    assert messages(staged.ledger.redis, job_queue(later)) == list(map(later.batch, range(3)))
    staged.ledger.jobs.cancel(staged.name)
    step(first)
    step(second)
    assert closed(staged) is None
    assert closed_key(staged.name) in set(store.keys(""))


def test_a_job_that_was_staged_anew_under_its_name_is_kept_as_it_is_now(staged, kept):
    staged.open()
    step(kept)
    later = anew(staged.manifest)
    write_manifest(staged.store, later)
    staged.ledger.jobs.create(later, job_queue(later))
    staged.ledger.redis.delete(f"{KEY_PREFIX}{job_queue(later)}")
    step(kept)
    assert messages(staged.ledger.redis, job_queue(later)) == list(map(later.batch, range(3)))


def test_a_job_that_is_being_staged_anew_waits_until_redis_knows_of_it(staged, keeper_of):
    staged.open()
    staged.take_all_messages()
    write_manifest(staged.store, anew(staged.manifest))
    step(keeper_of(), 2 * PATIENCE)
    assert staged.queued() == {}


# --- old jobs -----------------------------------------------------------------------------------

DAY = timedelta(days=1)


def close_before(job: Job, age: timedelta, state: JobState = JobState.FINISHED) -> None:
    mark = Closed(state=state, time=datetime.now(UTC) - age)
    job.store.put(closed_key(job.name), mark.model_dump_json().encode())


def clean(keeper: Keeper) -> None:
    keeper.old_jobs.next_look = 0
    step(keeper)


@pytest.mark.parametrize("state", [JobState.FINISHED, JobState.CANCELLED])
def test_a_job_that_is_over_for_long_is_deleted_and_nothing_else(staged, keeper_of, state):
    staged.store.put("validations/w.fp16.cpu.json", b"{}")
    staged.store.put("notes/readme.txt", b"no job")
    running = manifest_of([1], job=f"{staged.name}-2")
    write_manifest(staged.store, running)
    staged.open()
    staged.work()
    if state is JobState.CANCELLED:
        staged.ledger.redis.hset(f"{KEY_PREFIX}job:{staged.name}", "state", state)
    close_before(staged, 3 * DAY, state)
    clean(keeper_of(keep=2 * DAY))
    assert set(staged.store.keys("")) == {
        "validations/w.fp16.cpu.json",
        "notes/readme.txt",
        manifest_key(running.job),
    }
    assert staged.ledger.jobs.names() == [running.job]
    assert not staged.ledger.redis.keys(f"{KEY_PREFIX}job:{staged.name}:*")


def test_a_job_that_is_not_over_for_so_long_stays(staged, keeper_of):
    staged.open()
    staged.work()
    close_before(staged, DAY)
    clean(keeper_of(keep=2 * DAY))
    assert staged.progress.finished
    assert list(staged.store.keys(manifest_key(staged.name)))


def test_a_job_is_deleted_when_its_time_comes_and_not_at_the_next_look(staged, keeper_of):
    staged.open()
    kept = keeper_of(keep=timedelta(seconds=1))
    step(kept)  # looks at the whole store; the next look is in an hour
    staged.work()
    step(kept)
    assert closed(staged) is JobState.FINISHED

    def is_gone() -> bool:
        step(kept)
        return not list(staged.store.keys(manifest_key(staged.name)))

    wait_until(is_gone, 20)
    assert staged.ledger.jobs.names() == []


def test_a_job_that_was_closed_before_is_deleted_when_its_time_comes(staged, keeper_of):
    staged.open()
    staged.work()
    close_before(staged, DAY - timedelta(seconds=1))
    kept = keeper_of(keep=DAY)
    step(kept)
    assert list(staged.store.keys(manifest_key(staged.name)))

    def is_gone() -> bool:
        step(kept)
        return not list(staged.store.keys(manifest_key(staged.name)))

    wait_until(is_gone, 20)


def test_a_keeper_says_how_long_it_keeps_closed_jobs(staged, keeper_of):
    step(keeper_of())
    assert staged.ledger.stores.only_keep() is None
    kept = keeper_of(keep=2 * DAY, only=None)
    staged.ledger.redis.flushall()
    step(kept)
    assert (
        staged.ledger.stores.only_keep() == staged.ledger.stores.keep(staged.store.url) == 2 * DAY
    )
    staged.ledger.stores.note_keep("s3://another", DAY)
    assert staged.ledger.stores.only_keep() is None


def test_without_a_limit_old_jobs_stay_for_ever(staged, kept):
    staged.open()
    staged.work()
    close_before(staged, 1000 * DAY)
    clean(kept)
    assert list(staged.store.keys(manifest_key(staged.name)))


def test_an_old_job_that_runs_stays(staged, keeper_of):
    staged.open()
    clean(keeper_of(keep=timedelta(0)))
    assert staged.queued() == {"fp16": 3}
    assert list(staged.store.keys(manifest_key(staged.name)))


def test_an_old_job_that_was_submitted_again_is_noted_and_deleted_in_the_end(staged, keeper_of):
    kept = keeper_of(keep=DAY)
    staged.open()
    staged.work()
    step(kept)
    staged.open()  # finds it finished
    assert closed(staged) is None
    clean(kept)
    step(kept)
    assert closed(staged) is JobState.FINISHED


def test_an_old_job_does_not_take_another_store_s_job_of_its_name_with_it(
    staged, keeper_of, tmp_path
):
    later = anew(staged.manifest)
    staged.ledger.jobs.create(later, job_queue(later))
    close_before(staged, 3 * DAY)
    clean(keeper_of(keep=2 * DAY))
    assert not list(staged.store.keys(""))
    assert staged.ledger.jobs.names() == [staged.name]


@pytest.mark.parametrize("changes", [{"version": 2}, {"rung": "fp8"}])
@pytest.mark.parametrize("state", [JobState.OPEN, JobState.FINISHED])
def test_an_old_job_whose_manifest_cannot_be_read_stays(staged, keeper_of, caplog, changes, state):
    staged.open()
    staged.ledger.redis.hset(f"{KEY_PREFIX}job:{staged.name}", "state", state)
    close_before(staged, 3 * DAY)
    text = json.loads(staged.store.get(manifest_key(staged.name)))
    staged.store.put(manifest_key(staged.name), json.dumps(text | changes).encode())
    before = sorted(staged.store.keys(""))
    clean(keeper_of(keep=2 * DAY))
    assert sorted(staged.store.keys("")) == before
    assert staged.ledger.jobs.names() == [staged.name]
    assert f"Job {staged.name} is skipped: " in caplog.text
    assert "deleted." not in caplog.text


def old_jobs_beside(staged: Job, *names: str) -> None:
    for name in names:
        mark = Closed(state=JobState.FINISHED, time=datetime.now(UTC) - 3 * DAY)
        staged.store.put(closed_key(name), mark.model_dump_json().encode())


def names_in(job: Job) -> list[str]:
    return [name for name in job.store.folders() if name != job.name]


def test_an_old_job_that_cannot_be_deleted_keeps_no_other_from_it_and_is_said_once(
    staged, keeper_of, monkeypatch, caplog
):
    old_jobs_beside(staged, "a", "b", "c")
    kept, delete = keeper_of(keep=2 * DAY), staged.store.delete

    def refuse(prefix: str, *check) -> None:
        if prefix.startswith("a/"):
            raise StoreError("Store: cannot delete a/: Permission denied.")
        delete(prefix, *check)

    with monkeypatch.context() as patched:
        patched.setattr(staged.store, "delete", refuse)
        clean(kept)
        for _ in range(3):
            kept.old_jobs.next_try = 0
            step(kept)
    assert names_in(staged) == ["a"]
    assert caplog.text.count("Job a is deleted later") == 1
    assert "Job a was" not in caplog.text
    assert "Job b was finished since" in caplog.text
    kept.old_jobs.next_try = 0
    step(kept)
    assert names_in(staged) == []
    assert caplog.text.count("Job a was finished since") == 1


def test_old_jobs_are_deleted_in_portions_after_the_work_for_open_ones(
    staged, keeper_of, monkeypatch
):
    staged.open()
    staged.take_all_messages()
    staged.claim(staged.manifest.batch(0))
    staged.lapse(staged.manifest.batch(0))
    old_jobs_beside(staged, "a", "b", "c")
    monkeypatch.setattr(old_jobs, "PORTION_SECONDS", 0)
    kept, delete, seen = keeper_of(keep=2 * DAY), staged.store.delete, []

    def look(prefix: str, *check) -> None:
        seen.append(staged.queued())
        delete(prefix, *check)

    monkeypatch.setattr(staged.store, "delete", look)
    clean(kept)
    assert names_in(staged) == ["b", "c"]
    assert seen[0] == {"fp16": 1}
    step(kept)
    assert names_in(staged) == ["c"]
    step(kept, 2)
    assert names_in(staged) == []


def test_old_jobs_are_deleted_though_the_store_is_full(staged, keeper_of, monkeypatch):
    old_jobs_beside(staged, "a")

    def fail(*_) -> None:
        raise StoreError("No space left on device.")

    staged.open()
    staged.ledger.jobs.cancel(staged.name)
    monkeypatch.setattr(staged.store, "put", fail)
    kept = keeper_of(keep=2 * DAY)
    with pytest.raises(StoreError, match="No space left"):
        clean(kept)
    assert names_in(staged) == []


def test_a_store_that_is_away_is_said_once_by_what_deletes_old_jobs(
    staged, keeper_of, monkeypatch, caplog
):
    def fail() -> Iterator[str]:
        raise StoreError("503.")

    kept = keeper_of(keep=2 * DAY)
    step(kept)
    monkeypatch.setattr(staged.store, "folders", fail)
    for _ in range(3):
        clean(kept)
    assert caplog.text.count("Old jobs are deleted later: 503.") == 1


def test_a_folder_that_can_be_no_job_is_not_looked_into(staged, keeper_of, monkeypatch):
    """As ``lost+found``, which only root may read."""
    (staged.store.root / "lost+found").mkdir()
    get = staged.store.get

    def refuse(key: str) -> bytes:
        if key.startswith("lost+found/"):
            raise StoreError("Permission denied.")
        return get(key)

    monkeypatch.setattr(staged.store, "get", refuse)
    clean(keeper_of(keep=2 * DAY))
    assert staged.ledger.jobs.names() == [staged.name]
    assert not staged.ledger.stores.is_new(staged.store.url)


def test_no_demand_is_told_while_the_jobs_of_another_kept_store_are_not_known(
    staged, kept, keeper_of, tmp_path
):
    step(kept)
    assert staged.ledger.demand.read() is not None
    other = keeper_of(store=folder_store(tmp_path / "not-mounted"))
    shutil.rmtree(tmp_path / "not-mounted")
    with pytest.raises(StoreError):
        step(other)
    step(kept)
    assert staged.ledger.demand.read() is None
    other.stop()


# --- what fails ---------------------------------------------------------------------------------


def test_what_could_not_be_sent_is_sent_later(staged, kept, monkeypatch):
    staged.open()
    staged.take_all_messages()
    staged.claim(staged.manifest.batch(0))
    staged.lapse(staged.manifest.batch(0))

    def fail(*_) -> None:
        raise RedisError("away")

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "publish_next", fail)
        with pytest.raises(RedisError):
            step(kept)
    # The lease is gone, and nothing was sent: its message is found to be missing.
    step(kept, PATIENCE)
    assert staged.queued() == {"fp16": 3}


def test_a_batch_that_is_computed_while_its_lease_runs_out_is_counted_once(staged, kept):
    staged.open()
    batch = staged.manifest.batch(0)
    staged.take_all_messages()
    staged.claim(batch)
    staged.lapse(batch)
    step(kept)
    staged.ledger.results.complete(ok(batch), owner="a")
    assert staged.claim(batch, "b") is ClaimOutcome.DONE
    assert staged.progress.batches_done == 1
