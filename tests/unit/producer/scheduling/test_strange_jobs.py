"""A job that this version cannot read: keepers, metrics and ``status`` go on with the rest."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from common.errors import UserError
from common.job.layout import closed_key, manifest_key
from common.job.manifest import read_manifest, write_manifest
from common.ledger.events import EventKind
from common.ledger.keys import job_key
from common.ledger.unreadable import UnreadableJobError, is_odd_value
from common.rungs import Rung
from common.store import ObjectNotFoundError, StoreError
from common.wire.queues import KEY_PREFIX, Queues
from producer.cli import status as commands
from producer.fleet.fleet import Fleet
from producer.scheduling import keeper
from producer.scheduling.fleet_metrics import FLEET_METRICS
from producer.scheduling.fleet_reading import FleetReader
from producer.scheduling.keeper import Keeper
from producer.scheduling.lost_messages import PATIENCE
from producer.scheduling.one_by_one import OneByOne, concerns_one_job
from producer.scheduling.opening import job_queue, open_job
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs
from tests.support.staged import RECORDS, Job

STRANGE = "strange-0123456789ab"

#: A result, an event and a worker of a newer version.
RESULT = {"version": 2, "job": STRANGE, "index": 0, "rung": "fp16", "status": "ok", "worker": "w"}
EVENT = {"event": "paused", "time": 1}
WORKER = {
    "name": "[/x]",
    "model": "esm9_new",
    "weights": None,
    "device": "CPU",
    "precision": "fp16",
    "queues": ["esm9_new.fp16"],
}


def set_field(name: str, value: str) -> Callable[[Job], object]:
    return lambda job: job.ledger.redis.hset(job_key(STRANGE), name, value)


def set_text(part: str) -> Callable[[Job], object]:
    def act(job: Job) -> None:
        job.ledger.redis.delete(job_key(STRANGE) + part)
        job.ledger.redis.set(job_key(STRANGE) + part, "text")

    return act


def set_list(part: str) -> Callable[[Job], object]:
    def act(job: Job) -> None:
        job.ledger.redis.delete(job_key(STRANGE) + part)
        job.ledger.redis.rpush(job_key(STRANGE) + part, "text")

    return act


IN_REDIS: dict[str, Callable[[Job], object]] = {
    "state": set_field("state", "paused"),
    "counter": set_field("batches_done", "many"),
    "counters_of_more": set_field("rows_fp8", "1.5"),
    "size": set_field("batches", "?"),
    "published": set_field("published", "x"),
    "created": set_field("created", "yesterday"),
    "rung": set_field("rung", "fp8"),
    "no_model": lambda job: job.ledger.redis.hdel(job_key(STRANGE), "model"),
    "queue": lambda job: job.ledger.redis.hset(job_key(STRANGE), "queue", f"job:{job.name}"),
    "result": lambda job: job.ledger.redis.hset(
        f"{job_key(STRANGE)}:results", "0.fp16", json.dumps(RESULT)
    ),
    "result_no_json": lambda job: job.ledger.redis.hset(
        f"{job_key(STRANGE)}:results", "0.fp16", "{"
    ),
    "lease": lambda job: job.ledger.redis.zadd(f"{job_key(STRANGE)}:leases", {"7.fp8": 9e9}),
    "owner": lambda job: job.ledger.redis.hset(f"{job_key(STRANGE)}:owners", "7.int8", "w/1"),
    "expired": lambda job: job.ledger.redis.zadd(f"{job_key(STRANGE)}:leases", {"7.fp8": 1}),
    "lease_no_field": lambda job: job.ledger.redis.zadd(f"{job_key(STRANGE)}:leases", {"": 1}),
    "event": lambda job: job.ledger.redis.lpush(f"{job_key(STRANGE)}:events", json.dumps(EVENT)),
    "worker": lambda job: job.ledger.redis.set(f"{KEY_PREFIX}worker:x", json.dumps(WORKER)),
    "worker_precision": lambda job: job.ledger.redis.set(
        f"{KEY_PREFIX}worker:x", json.dumps({**WORKER, "precision": "fp8"})
    ),
    "worker_no_json": lambda job: job.ledger.redis.set(f"{KEY_PREFIX}worker:x", "{"),
    "newer_text": set_field("note", "of a newer version"),
    "unacked_as_list": lambda job: job.ledger.redis.rpush(f"{KEY_PREFIX}unacked", "text"),
    **{
        f"text_as{part or '_job'}": set_text(part)
        for part in ("", ":leases", ":owners", ":deaths", ":results", ":events")
    },
    **{
        f"list_as{part}": set_list(part)
        for part in (":begun", ":stored", ":done:fp16", ":done:fp32")
    },
}


@pytest.fixture
def strange(job: Job) -> Job:
    """A job that is open, beside one that waits to be made strange."""
    write_manifest(job.store, job.manifest)
    job.open()
    manifest = manifest_of([3, 1, 3], job=STRANGE)
    write_manifest(job.store, store_inputs(job.store, manifest, RECORDS))
    open_job(job.store, job.ledger, job.publisher, manifest)
    return job


@pytest.fixture
def kept(strange) -> Keeper:
    return Keeper(strange.store, strange.ledger, strange.publisher)


def steps(keeper: Keeper, times: int = 1) -> None:
    for _ in range(times):
        keeper.next_step = keeper._next_hold = keeper.lost_messages._next_look = 0
        keeper.step()


@pytest.mark.parametrize("act", IN_REDIS.values(), ids=IN_REDIS.keys())
def test_a_strange_job_in_redis_keeps_nothing_else_from_being_done_and_is_shown(
    act, strange, kept, redis_url, capsys, caplog
):
    steps(kept)
    act(strange)
    strange.lapse(strange.manifest.batch(0))
    steps(kept, 5)
    assert [e.detail for e in strange.ledger.events.latest(strange.name)] == [
        "its worker disappeared; requeued"
    ]
    strange.work()
    steps(kept)
    assert strange.store.get(closed_key(strange.name))
    skipped = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(skipped) == len(set(skipped))
    reading = FleetReader(strange.ledger, kept.one_by_one).read()
    assert strange.name in {job.progress.job for job in reading.jobs}
    assert [metric.family(reading) for metric in FLEET_METRICS]
    fleet = Fleet(broker=redis_url, store=strange.store.url)
    commands.show_fleet(fleet)
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert STRANGE in shown
    commands.show_job(fleet.job(strange.name))
    with suppress(UnreadableJobError):
        commands.show_job(fleet.job(STRANGE))


def test_what_a_newer_version_wrote_is_shown_as_far_as_it_can_be_read(strange, redis_url, capsys):
    for name in ("result", "event", "worker_precision", "newer_text", "owner"):
        IN_REDIS[name](strange)
    IN_REDIS["state"](strange)
    strange.ledger.redis.set(f"{KEY_PREFIX}worker:y", json.dumps(WORKER))
    fleet = Fleet(broker=redis_url, store=strange.store.url)
    commands.show_fleet(fleet)
    shown = capsys.readouterr().out
    assert "Worker x is of another version" in shown
    assert "[/x]" in shown
    assert "esm9_new" in shown
    assert f"Job {STRANGE} cannot be read by this version" in shown
    assert "paused" in shown
    set_field("state", "open")(strange)
    commands.show_job(fleet.job(STRANGE))
    shown = capsys.readouterr().out
    assert "Result 0.fp16 is of another version" in shown
    assert '"event": "paused"' in shown


MANIFESTS: dict[str, dict[str, object]] = {
    "unknown_model": {"model": "esm9_new"},
    "no_records": {"batch_records": [0, 1, 3]},
    "fewer_tokens": {"batch_tokens": [5]},
    "more_tokens": {"batch_tokens": [5, 5, 5, 5]},
    "negative": {"batch_tokens": [5, -5, 5]},
    "checksums": {"input_crc32": "01234567"},
    "rung": {"rung": "fp8"},
    "version": {"version": 2},
    "job": {"job": "../other"},
}


def written(job: Job, changes: dict[str, object]) -> None:
    text = json.loads(manifest_of([3, 1, 3], job=STRANGE).model_dump_json())
    job.store.put(manifest_key(STRANGE), json.dumps(text | changes).encode())


@pytest.mark.parametrize("changes", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_strange_manifest_keeps_no_other_job_from_coming_back(changes, job, caplog):
    write_manifest(job.store, job.manifest)
    written(job, changes)
    keeper = Keeper(job.store, job.ledger, job.publisher)
    steps(keeper, 3)
    assert job.progress.published == 3
    assert caplog.text.count(f"Job {STRANGE} is skipped") == 1


@pytest.mark.parametrize("changes", list(MANIFESTS.values())[1:], ids=list(MANIFESTS)[1:])
def test_every_reader_refuses_a_manifest_that_does_not_agree_with_itself(changes, job):
    written(job, changes)
    with pytest.raises(UserError, match="is damaged, or of another version"):
        read_manifest(job.store, STRANGE)


def test_an_unreadable_closed_json_ends_no_keeper(strange, kept):
    strange.store.put(closed_key(STRANGE), b'{"state": "archived"}')
    strange.ledger.redis.flushall()
    steps(kept, 2)
    assert strange.progress.published == 3


@pytest.mark.parametrize(
    ("error", "is_of_one_job"),
    [
        (ValueError("x"), True),
        (ObjectNotFoundError("x"), True),
        (StoreError("x"), False),
        (ResponseError("WRONGTYPE Operation against a key"), True),
        (ResponseError("ERR hash value is not an integer"), True),
        (ResponseError("MISCONF Errors writing to the AOF file"), False),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'"), False),
        (RedisConnectionError("gone"), False),
    ],
)
def test_only_an_error_of_one_job_is_left_to_that_job(error, is_of_one_job):
    assert concerns_one_job(error) is is_of_one_job


def test_a_queue_that_is_none_keeps_no_other_jobs_from_being_done(strange, kept, caplog):
    """Its jobs are named in the log with the key, and a submit of one is an error."""
    other = manifest_of([1, 1, 1], job="other-0123456789ab", rung=Rung.FP32)
    write_manifest(strange.store, store_inputs(strange.store, other, RECORDS[:3]))
    strange.ledger.jobs.create(other, job_queue(other))
    strange.take_all_messages()
    strange.ledger.redis.set(f"{KEY_PREFIX}{job_queue(strange.manifest)}", "text")
    strange.ledger.redis.set(f"{KEY_PREFIX}unacked", "text")
    steps(kept, 2)
    assert Queues(strange.ledger.redis).length(job_queue(other)) == 3
    strange.ledger.redis.rpop(f"{KEY_PREFIX}{job_queue(other)}")
    steps(kept, 2 * PATIENCE)
    (event,) = strange.ledger.events.latest(other.job)
    assert event.event is EventKind.MESSAGE_LOST
    assert strange.ledger.events.latest(strange.name) == []
    named = f"the key {KEY_PREFIX}{job_queue(strange.manifest)} is named as a queue"
    assert f"Job {strange.name} is skipped: ResponseError: WRONGTYPE: {named}" in caplog.text
    reading = FleetReader(strange.ledger, kept.one_by_one).read()
    assert job_queue(other) in reading.queues
    with pytest.raises(ResponseError, match=named):
        strange.open()


def test_the_error_of_a_program_is_logged_once_with_its_traceback(caplog):
    one_by_one = OneByOne()
    for _ in range(2):
        with one_by_one("a"):
            raise MemoryError
        with one_by_one("b"):
            raise UserError("The manifest is damaged.")
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]
    assert one_by_one.unexpected == 2


def test_a_job_that_was_not_restored_for_an_error_of_the_program_is_restored_later(
    strange, kept, monkeypatch
):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    strange.ledger.redis.flushall()
    with monkeypatch.context() as patched:
        patched.setattr(keeper, "open_job", fail)
        steps(kept)
    assert strange.ledger.jobs.names() == []
    steps(kept)  # not at once: a look through a large store takes long
    assert strange.ledger.jobs.names() == []
    kept.next_look = 0
    steps(kept)
    assert set(strange.ledger.jobs.names()) == {strange.name, STRANGE}


def test_what_keeps_a_submitted_job_from_being_published_is_an_error(strange, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("no batch")

    strange.ledger.jobs.cancel(strange.name)
    monkeypatch.setattr(strange.publisher, "_publish", fail)
    with pytest.raises(ValueError, match="no batch"):
        strange.open()


def test_a_newer_versions_fields_are_no_counters(strange):
    set_field("note", "text")(strange)
    progress = strange.ledger.jobs.progress(STRANGE)
    assert "note" not in progress.counts
    assert is_odd_value(ResponseError("WRONGTYPE x"))


@pytest.mark.parametrize("model", ["esm9_new", "random:esm9_new", ""])
def test_a_running_job_of_an_unknown_model_is_left_alone(strange, kept, model):
    steps(kept)
    manifest = manifest_of([3, 1, 3], job=STRANGE).model_copy(update={"model": model})
    write_manifest(strange.store, store_inputs(strange.store, manifest, RECORDS))
    another = Keeper(strange.store, strange.ledger, strange.publisher)
    kept.stop()
    strange.lapse(strange.manifest.batch(0))
    another._no_expiry_before = 0
    steps(another, 5)
    assert [e.detail for e in strange.ledger.events.latest(strange.name)] == [
        "its worker disappeared; requeued"
    ]
