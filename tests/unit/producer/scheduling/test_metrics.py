"""Metrics: they equal the ledger's counts, and only the acting keeper has the fleet's."""

import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from common.ledger.events import Event, EventKind
from common.ledger.keys import job_key
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.store import NoStoreError, StoreError
from common.wire.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetters
from common.wire.queues import KEY_PREFIX
from producer.scheduling import fleet_reading, metrics
from producer.scheduling.fleet_reading import KEPT_SECONDS, FleetReader
from producer.scheduling.keeper import Keeper
from producer.scheduling.metrics import FleetCollector, make_registry
from tests.support.jobs import failed, manifest_of, ok, poisoned, retry_after, unstable
from tests.support.ledgers import lapse
from tests.support.promtool import check_metrics

MANIFEST = manifest_of([3, 5, 1, 1])
JOB = MANIFEST.job
POOL = "random.esm2_t6_8M_UR50D.fp16"
QUEUE = f"low.{POOL}"
MODEL = MANIFEST.model

#: Values by name and labels, in the order of the labels' names.
Values = dict[tuple[str, ...], float]


def scrape(registry: CollectorRegistry) -> Values:
    """Return the values of the fleet and of the keeper that Prometheus gets."""
    text = generate_latest(registry).decode()
    return {
        (sample.name.removeprefix("virnucpro_"), *map(sample.labels.get, sorted(sample.labels))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("virnucpro_")
    }


@pytest.fixture
def keeper(job) -> Keeper:
    """A keeper that acts, but has kept nothing yet."""
    keeper = Keeper(job.store, job.ledger, job.publisher)
    keeper.step()
    return keeper


@pytest.fixture
def registry(keeper) -> CollectorRegistry:
    registry, _ = make_registry(keeper, FleetReader(keeper.ledger, keeper.one_by_one))
    return registry


def test_a_fleet_without_anything_has_its_zeros(registry):
    found = scrape(registry)
    zeros = {name for name, value in found.items() if not value}
    assert {("jobs", state) for state in ("open", "cancelled", "stopped", "finished")} <= zeros
    assert {("leases",), ("jobs_unlisted",), ("redis_memory_max_bytes",)} <= zeros
    assert {("dead_letters", "signature"), ("dead_letters", "other")} <= zeros
    assert {("keeper_step_errors_total", "store"), ("keeper_step_errors_total", "redis")} <= zeros
    assert found["redis_up",] == found["keeper_acting",] == 1
    assert found["redis_memory_used_bytes",] > 100_000
    assert found["fleet_reading_age_seconds",] < 60
    assert [value for name, value in found.items() if name[0] == "build_info"] == [1]


def test_a_job_s_values_are_those_of_the_ledger(registry, ledger, keeper):
    ledger.jobs.create(MANIFEST, QUEUE)
    ledger.jobs.advance(MANIFEST, 4)
    first = unstable(MANIFEST.batch(1), 4, 6)
    for result in (ok(MANIFEST.batch(0)), first, failed(MANIFEST.batch(3))):
        ledger.results.complete(result)
    ledger.leases.claim(retry_after(MANIFEST, first), owner="a", weights="w")
    ledger.redis.lpush(f"{KEY_PREFIX}{QUEUE}", "a", "b")
    ledger.demand.renew(keeper.store.url)
    found = scrape(registry)
    expected = {
        "batches": 4,
        "batches_done": 2,
        "batches_published": 4,
        "batches_waiting": 1,
        "batches_leased": 1,
        "batches_failed": 1,
        "batches_poisoned": 0,
        "batches_crashing": 0,
        "leases_lost_total": 0,
        "device_seconds_total": 0.5,
        "rows": 10,
        "rows_done": 6,
        "rows_retried": 2,
        "rows_quarantined": 0,
        "tokens": 120,
        "tokens_done": 72,
    }
    assert {name: found[f"job_{name}", JOB] for name in expected} == expected
    assert found["job_batches_at_rung", JOB, "fp16"] == 3
    assert found["job_batches_at_rung", JOB, "selective_fp32"] == 0
    assert found["job_rows_embedded_at_rung", JOB, "fp16"] == 6
    assert found["job_rows_unstable_at_rung", JOB, "fp16"] == 2
    assert found["job_info", JOB, MODEL, POOL, "low", "open"] == 1
    assert found["jobs", "open"] == found["leases",] == 1
    # Labels: model, pool, priority, queue, rung.
    assert found["queue_messages", MODEL, POOL, "low", QUEUE, "fp16"] == 2
    assert found["queue_messages", MODEL, POOL, "low", f"{QUEUE}.fp32", "fp32"] == 0
    assert found["demand_batches", MODEL, POOL] == 2


def test_a_speed_is_that_between_scrapes_and_says_when_a_job_ends(registry, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    first = scrape(registry)
    assert first["job_tokens_per_second", JOB] == 0
    assert ("job_eta_seconds", JOB) not in first
    ledger.results.complete(ok(MANIFEST.batch(1)))
    second = scrape(registry)
    speed, left = second["job_tokens_per_second", JOB], 60
    assert speed > 0
    assert second["job_eta_seconds", JOB] == pytest.approx(left / speed)


def test_promtool_accepts_the_metrics(registry, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    ledger.workers.announce(worker("a"))
    DeadLetters(ledger.redis).add(DeadLetter(queue="q", worker="w", reason="r", message="m"))
    check_metrics(generate_latest(registry).decode())


# --- jobs that are over -------------------------------------------------------------------------


def end(ledger: Ledger) -> None:
    """Let a job of two batches end, one of which fails."""
    short = manifest_of([1, 1], job="short")
    ledger.jobs.create(short, QUEUE)
    ledger.results.complete(ok(short.batch(0)))
    ledger.results.complete(failed(short.batch(1)))


def test_the_last_figures_of_a_job_stay_for_an_hour_after_its_end(registry, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    end(ledger)
    ledger.jobs.cancel(JOB)
    found = scrape(registry)
    assert (found["jobs", "cancelled"], found["jobs", "finished"]) == (1, 1)
    assert found["job_batches_failed", "short"] == 1
    assert found["job_info", "short", MODEL, POOL, "low", "finished"] == 1
    assert found["job_info", JOB, MODEL, POOL, "low", "cancelled"] == 1
    assert abs(found["job_ended_timestamp_seconds", "short"] - time.time()) < 100
    only_open = ("tokens_per_second", "eta_seconds", "batches_crashing", "blocked")
    assert not [name for name, *_ in found if name.removeprefix("job_") in only_open]
    assert not [name for name, *_ in found if name == "queue_messages"]
    ledger.redis.hset(job_key("short"), "ended", time.time() - KEPT_SECONDS - 100)
    registry, _ = make_registry(*parts_of(registry))  # of a keeper that starts
    found = scrape(registry)
    assert ("job_batches", "short") not in found
    assert found["job_batches", JOB] == 4
    assert found["jobs", "finished"] == 1


def parts_of(registry: CollectorRegistry) -> tuple[Keeper, FleetReader]:
    """Return the keeper of a registry, and a reader that has read nothing yet."""
    (keeper,) = [c.keeper for c in registry._collector_to_names if isinstance(c, FleetCollector)]
    return keeper, FleetReader(keeper.ledger, keeper.one_by_one)


def test_a_job_that_a_worker_of_an_earlier_version_ended_stays_if_it_was_seen_open(
    registry, ledger
):
    ledger.jobs.create(MANIFEST, QUEUE)
    scrape(registry)
    ledger.jobs.cancel(JOB)
    ledger.redis.hdel(job_key(JOB), "ended")
    for _ in range(2):
        assert scrape(registry)["job_batches", JOB] == 4
    started_later, _ = make_registry(*parts_of(registry))
    assert ("job_batches", JOB) not in scrape(started_later)


def test_a_job_that_is_resumed_is_open_again(registry, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    ledger.jobs.cancel(JOB)
    scrape(registry)
    ledger.jobs.resume(MANIFEST, "retry")
    found = scrape(registry)
    assert found["job_info", JOB, MODEL, POOL, "low", "open"] == 1
    assert ("job_ended_timestamp_seconds", JOB) not in found


def test_of_too_many_jobs_the_open_ones_have_metrics_and_the_rest_is_counted(
    registry, ledger, monkeypatch
):
    end(ledger)
    for number in range(3):
        ledger.jobs.create(manifest_of([1], job=f"open-{number}"), QUEUE)
    monkeypatch.setattr(fleet_reading, "MAX_JOBS", 3)
    found = scrape(registry)
    assert {labels[0] for name, *labels in found if name == "job_batches"} == {
        *("open-0", "open-1", "open-2")
    }
    assert found["jobs_unlisted",] == 1
    assert found["jobs", "finished"] == 1


# --- what needs somebody ------------------------------------------------------------------------


def test_batches_that_end_their_workers_are_counted(registry, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    for times in (1, 2):
        for number in range(times):
            ledger.leases.claim(MANIFEST.batch(times), owner=f"{number}", weights="w")
            lapse(ledger, MANIFEST.batch(times))
            ledger.leases.expire(JOB)
    ledger.results.complete(poisoned(MANIFEST.batch(0)))
    found = scrape(registry)
    assert found["job_batches_crashing", JOB] == 1
    assert found["job_batches_poisoned", JOB] == 1
    assert found["job_leases_lost_total", JOB] == 3


def worker(name: str, **changes: object) -> WorkerInfo:
    fields = {
        "name": name,
        "model": MODEL,
        "weights": "w",
        "device": "CPU",
        "precision": Rung.FP16,
        "queues": (POOL, f"high.{POOL}", f"low.{POOL}", f"{POOL}.fp32"),
    }
    return WorkerInfo.model_validate(fields | changes)


def test_workers_are_counted_and_joined_to_pools(registry, ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    found = scrape(registry)
    assert found["pool_workers", MODEL, POOL] == 0
    exact = POOL.replace("fp16", "fp32")
    for info in (
        worker("ready"),
        worker("loading", weights=None),
        worker("hanging", takes=False),
        worker("exact", precision=Rung.FP32, queues=(POOL, exact)),
        worker("other", model="esm9_new", queues=("esm9_new.fp16",)),
    ):
        ledger.workers.announce(info)
    found = scrape(registry)
    assert found["pool_workers", MODEL, POOL] == 2
    assert found["pool_workers", MODEL, exact] == 1
    assert found["pool_workers", "esm9_new", "esm9_new.fp16"] == 1
    states = {state: found["workers", MODEL, "fp16", state] for state in ("ready", "loading")}
    assert states == {"ready": 1, "loading": 1}
    assert found["workers", MODEL, "fp16", "hanging"] == 1
    assert found["workers", MODEL, "fp32", "ready"] == 1


@pytest.mark.parametrize(
    ("reason", "worker"),
    [
        ("no_workers", None),
        ("refused", worker("a", keys=("one",))),
        ("other_weights", worker("a", weights="v")),
        ("", worker("a")),
    ],
)
def test_a_job_that_nobody_can_go_on_with_is_named_with_the_reason(
    registry, ledger, reason, worker
):
    ledger.jobs.create(MANIFEST, QUEUE)
    ledger.jobs.advance(MANIFEST, 4, signed_with="two" if reason == "refused" else "")
    ledger.jobs.pin_weights(MANIFEST, "w")
    if worker is not None:
        ledger.workers.announce(worker)
    found = [labels for name, *labels in scrape(registry) if name == "job_blocked"]
    assert found == ([[JOB, reason]] if reason else [])


REASONS = {
    "not signed: VIRNUCPRO_MESSAGE_KEY is not set where it was sent": "signature",
    "its signature is wrong: VIRNUCPRO_MESSAGE_KEY is another one where it was sent": "signature",
    "not a task of this fleet: headers.signature is 1": "task",
    "not a batch that this version knows: job is missing": "batch",
    "the command 'shutdown', which workers do not obey": "control",
    "a string in place of a list: it was deleted": "key",
    "not JSON: x": "unreadable",
    "whatever": "other",
}


def test_dead_letters_are_counted_by_kind_with_the_time_of_the_last(registry, ledger):
    for number, reason in enumerate(REASONS):
        letter = DeadLetter(time=number, queue="q", worker="w", reason=reason, message="m")
        DeadLetters(ledger.redis).add(letter)
    for _ in range(2):
        found = scrape(registry)
        for kind in REASONS.values():
            count = list(REASONS.values()).count(kind)
            assert found["dead_letters", kind] == count
        assert found["last_dead_letter_timestamp_seconds",] == len(REASONS) - 1
    DeadLetters(ledger.redis).clear()
    found = scrape(registry)
    assert found["dead_letters", "signature"] == 0
    assert ("last_dead_letter_timestamp_seconds",) not in found


def test_a_key_of_dead_letters_that_is_none_hides_no_other_metric(registry, ledger):
    ledger.redis.set(DEAD_LETTERS, "text")
    found = scrape(registry)
    assert ("dead_letters", "other") not in found
    assert found["jobs", "open"] == 0


# --- whose metrics they are ---------------------------------------------------------------------


def test_only_the_acting_keeper_has_the_fleet(job, keeper, registry):
    job.open()
    other = Keeper(job.store, job.ledger, job.publisher)
    other.step()
    others, _ = make_registry(other, FleetReader(job.ledger, other.one_by_one))
    found = {name for name, *_ in scrape(others)}
    assert {"keeper_acting", "redis_up", "build_info", "keeper_step_errors_total"} <= found
    assert not [name for name in found if name.startswith(("job", "queue", "demand", "worker"))]
    assert scrape(others)["keeper_acting",] == 0
    assert scrape(registry)["job_batches", job.name] == 3


def test_a_redis_that_is_away_is_said_and_the_keeper_s_own_metrics_are_there(keeper, tmp_path):
    away = Redis(unix_socket_path=str(tmp_path / "none"), retry=Retry(NoBackoff(), 0))
    registry, _ = make_registry(keeper, FleetReader(Ledger(away), keeper.one_by_one))
    found = scrape(registry)
    assert (found["redis_up",], found["keeper_acting",]) == (0, 1)
    assert "keeper_step_seconds_count" in {name for name, *_ in found}
    assert ("jobs", "open") not in found


class SlowReader(FleetReader):
    """A reader whose second reading takes longer than a scrape waits."""

    readings = 0

    def read(self) -> fleet_reading.FleetReading:
        self.readings += 1
        if self.readings == 2:
            time.sleep(1)
        return super().read()


def test_a_slow_reading_is_answered_with_the_one_before_and_its_age(keeper, ledger, monkeypatch):
    registry, _ = make_registry(keeper, SlowReader(ledger, keeper.one_by_one))
    first = scrape(registry)
    monkeypatch.setattr(metrics, "WAIT_SECONDS", 0.2)
    ledger.jobs.create(MANIFEST, QUEUE)
    second = scrape(registry)
    assert (first["jobs", "open"], second["jobs", "open"], second["redis_up",]) == (0, 0, 1)
    assert second["fleet_reading_age_seconds",] >= 0.2
    monkeypatch.setattr(metrics, "STALE_SECONDS", 0.0)
    assert ("jobs", "open") not in scrape(registry)


# --- the keeper's own ---------------------------------------------------------------------------


def test_steps_errors_and_requeued_batches_are_counted(keeper):
    registry, own = make_registry(keeper, FleetReader(keeper.ledger, keeper.one_by_one))

    def step(error: Callable[[], Exception] | None = None) -> None:
        with own.step(keeper):
            if error is not None:
                raise error()

    step()
    with pytest.raises(StoreError):
        step(lambda: StoreError("gone"))
    with pytest.raises(NoStoreError):
        step(lambda: NoStoreError("not yet"))
    with pytest.raises(RedisConnectionError):
        step(lambda: RedisConnectionError("gone"))
    for kind in (EventKind.LEASE_LOST, EventKind.LEASE_LOST, EventKind.MESSAGE_LOST):
        own.count(Event(event=kind))
    keeper.acting = False
    step()
    found = scrape(registry)
    assert found["keeper_step_seconds_count",] == 1
    assert found["keeper_step_errors_total", "store"] == 1
    assert found["keeper_step_errors_total", "no_store"] == 1
    assert found["keeper_step_errors_total", "redis"] == 1
    assert found["keeper_requeued_batches_total", "lease_lost"] == 2
    assert found["keeper_requeued_batches_total", "message_lost"] == 1
    assert abs(found["keeper_last_step_timestamp_seconds",] - time.time()) < 100
