"""A job's priority, changed while it is under way: no batch is lost, and none has two messages."""

import threading
from collections import Counter

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from common.errors import JobEndedError, UserError
from common.job.layout import priority_key
from common.job.manifest import write_manifest
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Batch, Priority
from common.wire.queues import Queues, queue_name
from common.wire.signing import MessageKeys
from producer.scheduling import priority as changing
from producer.scheduling.keeper import Keeper
from producer.scheduling.lost_messages import PATIENCE
from producer.scheduling.opening import model_of
from producer.scheduling.priority import set_priority
from producer.scheduling.publisher import Publisher
from producer.scheduling.stored_priority import with_stored_priority
from tests.support.jobs import retry_after
from tests.support.messages import body_of
from tests.support.staged import Job, messages
from workers.transport.envelope import Refusal, check_message

HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW


@pytest.fixture
def staged(job) -> Job:
    write_manifest(job.store, job.manifest)
    job.open()
    return job


def change(job: Job, priority: Priority, publisher: Publisher | None = None) -> int:
    publisher = publisher or job.publisher
    return set_priority(job.store, job.ledger, publisher, job.manifest, job.progress, priority)


def queued(job: Job) -> dict[Priority, list[Batch]]:
    """Return the job's messages at all rungs by the priority of their queue."""
    model, first = model_of(job.manifest), job.manifest.rung
    return {
        priority: [
            batch
            for rung in Rung
            for batch in messages(job.ledger.redis, queue_name(model, first, rung, priority))
        ]
        for priority in Priority
    }


def places(job: Job) -> dict[Priority, list[tuple[int, Rung]]]:
    found = {
        priority: sorted((batch.index, batch.rung) for batch in batches)
        for priority, batches in queued(job).items()
    }
    return {priority: batches for priority, batches in found.items() if batches}


def step(keeper: Keeper, times: int = 1) -> None:
    for _ in range(times):
        keeper.next_step = keeper._next_hold = keeper.lost_messages._next_look = 0
        keeper.priorities._next_look = 0
        keeper.step()


def keeper_of(job: Job) -> Keeper:
    return Keeper(job.store, job.ledger, job.publisher)


ALL = [(0, Rung.FP16), (1, Rung.FP16), (2, Rung.FP16)]


@pytest.mark.parametrize("priority", [HIGH, LOW])
def test_messages_that_wait_are_moved_in_their_order_and_say_the_priority(staged, priority):
    assert change(staged, priority) == 3
    assert places(staged) == {priority: ALL}
    assert [(batch.index, batch.priority) for batch in queued(staged)[priority]] == [
        (0, priority),
        (1, priority),
        (2, priority),
    ]
    assert staged.progress.priority is priority
    assert change(staged, NORMAL) == 3
    assert places(staged) == {NORMAL: ALL}


def test_no_call_of_redis_moves_many_messages(staged, monkeypatch):
    """It does nothing else meanwhile, and may look through a long queue for each."""
    publish(staged.app, model_of(staged.manifest), [staged.manifest.batch(0)] * 30)
    move, sizes = Queues.move_messages, []

    def counted(queues: Queues, moved, **options) -> int:
        sizes.append(len(moved))
        return move(queues, moved, **options)

    monkeypatch.setattr(Queues, "move_messages", counted)
    assert change(staged, HIGH) == sum(sizes) == 33
    assert max(sizes) <= 10


def test_a_moved_message_is_one_that_workers_take(staged, redis_url):
    keys = MessageKeys.parse("0123456789abcdef")
    publisher = Publisher(staged.ledger, make_celery(redis_url, [], keys), 1000)
    change(staged, HIGH, publisher)
    queue = staged.progress.queue
    for item in Queues(staged.ledger.redis).messages(queue):
        assert not isinstance(check_message(item, keys, queue), Refusal)


def test_batches_that_are_not_published_yet_and_retries_follow(job_of):
    job = job_of(high_water=1)
    write_manifest(job.store, job.manifest)
    job.open()
    first = job.manifest.batch(0)
    assert places(job) == {NORMAL: ALL[:1]}
    change(job, LOW)
    assert places(job) == {LOW: ALL[:1]}
    job.take_all_messages()
    job.compute(first, never_finite=[0])
    step(keeper_of(job), 2 * PATIENCE)
    assert set(places(job)) == {LOW}
    assert Rung.SELECTIVE_FP32 in {rung for _, rung in places(job)[LOW]}


def test_what_a_worker_of_before_sends_to_the_old_queue_is_moved_by_a_keeper(staged):
    worked = staged.manifest.batch(1)
    staged.take_all_messages()
    change(staged, HIGH)
    result = staged.compute(worked, never_finite=[4])
    publish(staged.app, model_of(staged.manifest), [retry_after(staged.manifest, result)])
    publish(staged.app, model_of(staged.manifest), [staged.manifest.batch(0)])  # given back
    assert set(places(staged)) == {NORMAL}
    step(keeper_of(staged))
    assert places(staged) == {HIGH: [(0, Rung.FP16), (1, Rung.SELECTIVE_FP32)]}


def test_a_keeper_that_may_move_no_messages_keeps_jobs_going(job_of, monkeypatch):
    job = job_of(high_water=2)
    write_manifest(job.store, job.manifest)
    job.open()
    change(job, HIGH)
    job.take_all_messages()
    job.compute(job.manifest.batch(1))
    publish(job.app, model_of(job.manifest), [job.manifest.batch(0)])  # given back

    def refuse(*arguments, **options) -> int:
        raise NoPermissionError("this user has no permissions to run the 'lrem' command")

    monkeypatch.setattr(Queues, "move_messages", refuse)
    with pytest.raises(NoPermissionError):
        step(keeper_of(job))
    assert places(job)[HIGH] == [(2, Rung.FP16)]


def test_a_keeper_does_not_take_moved_messages_for_lost(staged):
    kept = keeper_of(staged)
    step(kept)
    change(staged, HIGH)
    step(kept, 3 * PATIENCE)
    assert places(staged) == {HIGH: ALL}


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_change_that_is_killed_leaves_each_batch_in_one_queue_and_a_keeper_goes_on(
    staged, monkeypatch, moved
):
    monkeypatch.setattr(changing, "MOVED_TOGETHER", 1)
    move, calls = Queues.move_messages, 0

    def killed(*args, **options) -> int:
        nonlocal calls
        calls += 1
        if calls > moved:
            raise RedisConnectionError("killed")
        return move(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Queues, "move_messages", killed)
        with pytest.raises(RedisConnectionError):
            change(staged, HIGH)
    found = places(staged)
    assert len(found.get(HIGH, [])) == moved
    assert sorted(place for batches in found.values() for place in batches) == ALL
    step(keeper_of(staged))
    assert places(staged) == {HIGH: ALL}


def test_of_two_callers_at_once_one_wins_and_nothing_is_lost_or_doubled(job_of, monkeypatch):
    monkeypatch.setattr(changing, "MOVED_TOGETHER", 1)
    job = job_of()
    write_manifest(job.store, job.manifest)
    job.open()

    def keep_changing(*priorities: Priority) -> None:
        for _ in range(5):
            for priority in priorities:
                change(job, priority)

    threads = [
        threading.Thread(target=keep_changing, args=priorities)
        for priorities in ((HIGH, LOW), (LOW, NORMAL))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = Counter(place for found in places(job).values() for place in found)
    assert counted == Counter(ALL)
    step(keeper_of(job))
    assert places(job) == {job.progress.priority: ALL}
    assert with_stored_priority(job.store, job.manifest).priority is job.progress.priority


def test_a_caller_that_comes_late_moves_nothing(staged):
    change(staged, LOW)
    late = staged.manifest.with_priority(HIGH)
    assert changing.gather(staged.ledger, staged.publisher, late) == 0
    assert places(staged) == {LOW: ALL}


def test_who_publishes_by_an_earlier_manifest_follows_the_ledger(job_of):
    job = job_of(high_water=2)
    write_manifest(job.store, job.manifest)
    job.open()
    change(job, LOW)
    job.take_all_messages()
    job.claim(job.manifest.batch(0))
    job.claim(job.manifest.batch(1))
    assert job.publisher.top_up({job.name: job.manifest}) == 1
    assert places(job) == {LOW: ALL[2:]}


def test_a_running_batch_goes_on_and_is_counted_once(staged):
    batch = staged.manifest.batch(0)
    staged.claim(batch)
    assert change(staged, HIGH) == 2  # its own message, if it is there, is skipped by a worker
    staged.compute(batch)
    assert staged.progress.batches_done == 1
    step(keeper_of(staged), 2 * PATIENCE)
    assert places(staged)[HIGH] == ALL[1:]


def test_the_priority_survives_an_emptied_redis(staged):
    change(staged, LOW)
    staged.ledger.redis.flushall()
    step(keeper_of(staged))
    assert places(staged) == {LOW: ALL}
    assert staged.progress.priority is LOW


def test_the_priority_of_an_earlier_staging_is_not_that_of_the_job(staged):
    change(staged, LOW)
    later = staged.manifest.model_copy(
        update={"created": staged.manifest.created.replace(year=2027)}
    )
    assert with_stored_priority(staged.store, later).priority is NORMAL
    staged.store.put(priority_key(staged.name), b"{")
    assert with_stored_priority(staged.store, staged.manifest).priority is NORMAL


def test_a_finished_job_is_refused(staged):
    staged.work()
    with pytest.raises(JobEndedError, match="is finished"):
        change(staged, HIGH)


def worker(job: Job, *keys: str) -> WorkerInfo:
    queues = tuple(job.progress.queues.values())
    fields = {"name": "w", "model": "m", "weights": "w", "device": "CPU", "precision": Rung.FP16}
    return WorkerInfo(**fields, queues=queues, keys=keys)


def test_without_the_workers_key_nothing_is_changed(staged):
    staged.ledger.workers.announce(worker(staged, "theirs"))
    with pytest.raises(UserError, match="VIRNUCPRO_MESSAGE_KEY"):
        change(staged, HIGH)
    assert places(staged) == {NORMAL: ALL}
    assert staged.progress.priority is NORMAL


def test_a_keeper_without_the_workers_key_leaves_their_messages_alone(staged, redis_url):
    change(staged, HIGH)
    publish(staged.app, model_of(staged.manifest), [staged.manifest.batch(0)])
    before = places(staged)
    staged.ledger.workers.announce(worker(staged, "theirs"))
    step(keeper_of(staged))
    assert places(staged) == before


def test_only_the_name_of_a_batch_is_believed_of_a_message(staged):
    queue = queue_name(model_of(staged.manifest), Rung.FP16, Rung.FP16)
    forged = staged.manifest.batch(2).model_copy(update={"key": "another/input", "records": 99})
    staged.take_all_messages()
    publish(staged.app, model_of(staged.manifest), [forged])
    assert len(messages(staged.ledger.redis, queue)) == 1
    change(staged, HIGH)
    (text,) = Queues(staged.ledger.redis).messages(staged.progress.queue)
    assert Batch(**body_of(text)[1]) == staged.manifest.with_priority(HIGH).batch(2)
