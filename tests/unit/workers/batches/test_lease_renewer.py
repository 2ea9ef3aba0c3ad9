"""The lease renewer: leases as far as Redis answers, and what it knows of Redis."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.local.embedded_redis import redis_server
from common.rungs import Rung
from common.wire.redis_client import connect, redis_client
from tests.support.jobs import manifest_of
from tests.support.processes import wait_until
from workers.batches import lease_renewer
from workers.batches.lease import Lease
from workers.batches.lease_renewer import LeaseRenewer

WORKER = WorkerInfo(
    name="a", model="m", weights=None, device="CPU", precision=Rung.FP16, queues=("m.fp16",)
)


@pytest.fixture
def own_redis_url() -> Iterator[str]:
    """A Redis that may be frozen, and killed."""
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        socket = Path(folder, "redis.sock")
        with redis_server(socket):
            yield f"unix://{socket}?db=0"


@contextmanager
def frozen(redis: Redis) -> Iterator[None]:
    process = redis.info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextmanager
def running_renewer(url: str, idle: Callable[[], float] = lambda: 0.0) -> Iterator[LeaseRenewer]:
    ledger = Ledger(redis_client(url, answer_seconds=0.2, retries=0))
    renewer = LeaseRenewer(ledger, WORKER, idle)
    renewer.start()
    try:
        yield renewer
    finally:
        renewer.stop()


@pytest.fixture
def _fast(monkeypatch):
    monkeypatch.setattr(lease_renewer, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease_renewer, "RETRY_SECONDS", 0.05)


def claimed_lease(redis: Redis, renewer: LeaseRenewer, job: str = "in-0") -> Lease:
    ledger, manifest = Ledger(redis), manifest_of([2], job=job)
    ledger.jobs.create(manifest, "m.fp16")
    lease = Lease(manifest.batch(0), f"a/{job}", ledger, renewer)
    lease.claim("w")
    return lease


@pytest.mark.usefixtures("_fast")
def test_rounds_go_on_and_claims_are_renewed_again_though_redis_was_frozen(own_redis_url):
    with connect(own_redis_url) as redis, running_renewer(own_redis_url) as renewer:
        lease = claimed_lease(redis, renewer)
        leases = f"virnucpro:job:{lease.batch.job}:leases"
        with lease:
            wait_until(lambda: renewer.contact.answers, 5)
            with frozen(redis):
                wait_until(lambda: not renewer.contact.answers, 5)
                assert renewer.contact.refusal is None
                time.sleep(0.5)
                wait_until(lambda: renewer.round_seconds < 0.3, 2)
            redis.zadd(leases, {"0.fp16": 1})  # all but lost
            wait_until(lambda: redis.zscore(leases, "0.fp16") > 1, 2)
            assert not lease.is_lost


@pytest.mark.usefixtures("_fast")
def test_a_renewer_ends_quietly_though_redis_is_frozen(own_redis_url):
    with connect(own_redis_url) as redis, running_renewer(own_redis_url) as renewer:
        wait_until(lambda: Ledger(redis).workers.all(), 5)
        with frozen(redis):
            renewer.stop()


@pytest.mark.usefixtures("_fast")
def test_what_is_new_of_a_worker_is_said_later_if_redis_does_not_answer_now(own_redis_url):
    with connect(own_redis_url) as redis, running_renewer(own_redis_url) as renewer:
        with frozen(redis):
            renewer.update(WORKER.model_copy(update={"weights": "w"}))
        wait_until(lambda: [w.weights for w in Ledger(redis).workers.all()] == ["w"], 5)


@pytest.mark.usefixtures("_fast")
def test_the_entry_comes_back_after_redis_was_emptied(redis_url, redis):
    with running_renewer(redis_url):
        wait_until(lambda: Ledger(redis).workers.all(), 5)
        redis.flushall()
        wait_until(lambda: Ledger(redis).workers.all(), 5)


@pytest.mark.usefixtures("_fast")
def test_a_worker_that_looks_for_no_messages_says_so(own_redis_url, monkeypatch):
    monkeypatch.setattr(lease_renewer, "IDLE_SECONDS", 1.0)
    idle = [1000.0]
    with connect(own_redis_url) as redis, running_renewer(own_redis_url, lambda: idle[0]):
        workers = Ledger(redis).workers
        wait_until(lambda: [worker.takes for worker in workers.all()] == [False], 5)
        idle[0] = 0.0
        wait_until(lambda: [worker.takes for worker in workers.all()] == [True], 5)


@pytest.mark.usefixtures("_fast")
def test_a_worker_takes_batches_as_far_as_it_can_while_redis_is_away(own_redis_url, monkeypatch):
    monkeypatch.setattr(lease_renewer, "IDLE_SECONDS", 0.5)
    with (
        connect(own_redis_url) as redis,
        frozen(redis),
        running_renewer(own_redis_url, lambda: 1000.0) as renewer,
    ):
        time.sleep(1)
        assert renewer.takes


@pytest.mark.usefixtures("_fast")
def test_a_key_of_the_wrong_type_ends_the_renewal_of_no_other_job(redis_url, redis):
    with running_renewer(redis_url) as renewer:
        bad, good = (claimed_lease(redis, renewer, job) for job in ("bad-0", "good-0"))
        with bad, good:
            redis.delete(f"virnucpro:job:{bad.batch.job}:leases")
            redis.set(f"virnucpro:job:{bad.batch.job}:leases", "x")
            leases = f"virnucpro:job:{good.batch.job}:leases"
            redis.zadd(leases, {"0.fp16": time.time() + 3})
            wait_until(lambda: redis.zscore(leases, "0.fp16") > time.time() + 5, 5)
            assert not good.is_lost
        assert Ledger(redis).workers.all()
