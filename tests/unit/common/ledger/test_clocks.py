"""Redis's clock, set back by an hour: what lasts longer than it may is cut to its time."""

import pytest

from common.ledger.claims import ClaimOutcome
from common.ledger.keys import batch_field, job_key
from common.ledger.leases import LEASE_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.locks import KEEPING_SECONDS, STAGING_SECONDS, keeper_key, staging_key
from common.ledger.workers import WORKER_TTL_SECONDS, WorkerInfo
from common.rungs import Rung
from common.wire.queues import KEY_PREFIX
from tests.support.ledgers import BATCH, OTHER, progress_of, take, try_to_claim

HOUR = 3600

WORKER = WorkerInfo(
    name="a", model="m", weights="w", device="CPU", precision=Rung.FP16, queues=("m.fp16",)
)


def set_back(ledger: Ledger) -> None:
    """Make a lease last as if Redis's clock had been set back by an hour since."""
    field = batch_field(BATCH.index, BATCH.rung)
    ledger.redis.zincrby(f"{job_key(BATCH.job)}:leases", HOUR, field)


def left(ledger: Ledger) -> float:
    """Return how long the lease lasts."""
    field = batch_field(BATCH.index, BATCH.rung)
    expiry = ledger.redis.zscore(f"{job_key(BATCH.job)}:leases", field)
    return expiry - ledger.now().timestamp()


@pytest.mark.parametrize("looks", ["claim", "expire", "renew"])
def test_a_lease_lasts_no_longer_than_a_lease_from_the_next_look_on(ledger, looks):
    take(ledger, owner="dead")
    set_back(ledger)
    assert left(ledger) > HOUR
    match looks:
        case "claim":
            assert try_to_claim(ledger, owner="b") is ClaimOutcome.HELD
        case "expire":
            assert ledger.leases.expire(BATCH.job) == []
        case "renew":
            assert ledger.leases.renew(BATCH, owner="dead")
    assert left(ledger) <= LEASE_SECONDS


def test_a_lease_from_before_is_not_counted_as_running(ledger):
    take(ledger, owner="dead")
    take(ledger, OTHER, owner="alive")
    set_back(ledger)
    assert progress_of(ledger).leased == 1


def test_expiring_leaves_the_others_as_they_are(ledger):
    take(ledger, owner="alive")
    before = left(ledger)
    ledger.leases.expire(BATCH.job)
    assert left(ledger) == pytest.approx(before, abs=1)


@pytest.mark.parametrize("seconds", [HOUR, None])
def test_locks_last_no_longer_than_their_time(ledger, seconds):
    locks, redis = ledger.locks, ledger.redis
    keys = {keeper_key("s3://a"): KEEPING_SECONDS, staging_key(BATCH.job): STAGING_SECONDS}
    for key in keys:
        redis.set(key, "dead", ex=seconds)
    assert not locks.hold_keeping("s3://a", "b")
    assert not locks.hold_staging(BATCH.job, "b")
    for key, most in keys.items():
        assert 0 < redis.ttl(key) <= most


def test_a_dead_worker_is_listed_no_longer_than_its_time(ledger):
    key = f"{KEY_PREFIX}worker:{WORKER.name}"
    ledger.workers.announce(WORKER)
    ledger.redis.expire(key, HOUR)
    assert ledger.workers.all() == [WORKER]
    assert 0 < ledger.redis.ttl(key) <= WORKER_TTL_SECONDS


# --- locks that are gone ------------------------------------------------------------------------


def test_a_lock_that_is_gone_is_renewed_only_if_no_other_had_it_since(ledger):
    locks = ledger.locks
    assert locks.hold_staging("j", "a")
    ledger.redis.delete(staging_key("j"))
    assert locks.hold_staging("j", "a", renew=True)  # nobody had it
    ledger.redis.delete(staging_key("j"))
    assert locks.hold_staging("j", "b")
    assert not locks.hold_staging("j", "a", renew=True)
    locks.release_staging("j", "b")
    assert not locks.hold_staging("j", "a", renew=True)  # b had it
    ledger.redis.flushall()
    assert locks.hold_staging("j", "a", renew=True)
