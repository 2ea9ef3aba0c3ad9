"""Signs of life: to the ledger as far as Redis answers, to the supervisor in any case."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.local.embedded_redis import redis_server
from common.rungs import Rung
from common.wire.messages import Batch
from common.wire.redis_client import connect, redis_client
from tests.support.jobs import manifest_of
from tests.support.processes import wait_until
from workers.batches import lease_renewer as heartbeat
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
def beating(url: str, beat_file: Path | None = None) -> Iterator[LeaseRenewer]:
    pulse = LeaseRenewer(
        Ledger(redis_client(url, answer_seconds=0.2, retries=0)), WORKER, beat_file
    )
    pulse.start()
    try:
        yield pulse
    finally:
        pulse.stop()


@pytest.fixture
def _fast(monkeypatch):
    monkeypatch.setattr(heartbeat, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "RETRY_SECONDS", 0.05)


def claim_batch(redis: Redis) -> Batch:
    ledger, manifest = Ledger(redis), manifest_of([2])
    ledger.jobs.create(manifest, "m.fp16")
    ledger.leases.claim(manifest.batch(0), owner="a/1", weights="w")
    return manifest.batch(0)


@pytest.mark.usefixtures("_fast")
def test_the_file_is_touched_and_claims_are_renewed_again_though_redis_was_frozen(
    own_redis_url, tmp_path
):
    beat_file = tmp_path / "beat"
    with connect(own_redis_url) as redis, beating(own_redis_url, beat_file) as pulse:
        batch = claim_batch(redis)
        leases = f"virnucpro:job:{batch.job}:leases"
        with pulse.holding(batch, "a/1"):
            wait_until(beat_file.exists, 5)
            with frozen(redis):
                time.sleep(0.5)
                before = beat_file.stat().st_mtime_ns
                wait_until(lambda: beat_file.stat().st_mtime_ns > before, 2)
            redis.zadd(leases, {"0.fp16": 1})  # all but lost
            wait_until(lambda: redis.zscore(leases, "0.fp16") > 1, 2)
            assert not pulse.is_lost("a/1")


@pytest.mark.usefixtures("_fast")
def test_a_heartbeat_ends_quietly_though_redis_is_frozen(own_redis_url):
    with connect(own_redis_url) as redis, beating(own_redis_url) as pulse:
        wait_until(lambda: Ledger(redis).workers.all(), 5)
        with frozen(redis):
            pulse.stop()


@pytest.mark.usefixtures("_fast")
def test_what_is_new_of_a_worker_is_said_later_if_redis_does_not_answer_now(own_redis_url):
    with connect(own_redis_url) as redis, beating(own_redis_url) as pulse:
        with frozen(redis):
            pulse.update(WORKER.model_copy(update={"weights": "w"}))
        wait_until(lambda: [w.weights for w in Ledger(redis).workers.all()] == ["w"], 5)


@pytest.mark.usefixtures("_fast")
def test_a_file_that_cannot_be_touched_does_not_stop_the_beats(redis_url, redis, tmp_path):
    with beating(redis_url, tmp_path / "gone" / "beat"):
        wait_until(lambda: Ledger(redis).workers.all(), 5)
        redis.flushall()
        wait_until(lambda: Ledger(redis).workers.all(), 5)
