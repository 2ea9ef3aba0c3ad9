"""What a process says of itself: whether it consumes, loads, waits for Redis, or is not alive."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.wire.redis_client import redis_client
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisServer, running_redis
from workers.batches import lease_renewer
from workers.batches.lease_renewer import IDLE_SECONDS, Contact, LeaseRenewer
from workers.process import heartbeat as module
from workers.process.beat import Beat, read_beat
from workers.process.heartbeat import REFUSED_SECONDS, ROUND_SECONDS, Heartbeat

WORKER = WorkerInfo(
    name="a", model="m", weights=None, device="CPU", precision=Rung.FP16, queues=("m.fp16",)
)


class Renewer(LeaseRenewer):
    """A lease renewer that is not started, in the state that a test gives it."""

    def __init__(
        self, contact: Contact, *, age: float = 0.0, idle: float = 0.0, round_age: float = 0.0
    ) -> None:
        self.contact = Contact(contact.answers, contact.refusal, time.monotonic() - age)
        self.idle_seconds = lambda: idle
        self._round_ended = time.monotonic() - round_age


ANSWERS, AWAY = Contact(answers=True), Contact(answers=False)
REFUSES = Contact(answers=False, refusal="no permission")


def beat(renewer: LeaseRenewer, *, stage: str | None = None, polls: bool = True) -> Beat:
    heartbeat = Heartbeat(None)
    heartbeat.stage = stage
    heartbeat.watch(renewer, lambda: polls)
    return heartbeat.beat()


def test_a_process_that_consumes_says_so():
    assert beat(Renewer(ANSWERS, age=1000, idle=1)) == Beat()


def test_a_process_that_looks_for_no_messages_though_redis_answers_is_not_alive():
    assert beat(Renewer(ANSWERS, age=1000, idle=IDLE_SECONDS - 1)).alive
    found = beat(Renewer(ANSWERS, age=1000, idle=IDLE_SECONDS + 1))
    assert (found.alive, found.consumes) == (False, False)
    assert found.reason == "no message was looked for in 30 s, though Redis answers"


def test_after_an_outage_of_redis_a_process_has_the_whole_time_again():
    assert beat(Renewer(ANSWERS, age=5, idle=1000)).alive
    assert not beat(Renewer(ANSWERS, age=IDLE_SECONDS + 1, idle=1000)).alive


def test_a_process_whose_redis_is_away_is_alive_and_does_not_consume():
    found = beat(Renewer(AWAY, age=10_000, idle=10_000))
    assert found == Beat(consumes=False, reason="waiting for Redis")


def test_a_process_that_redis_refuses_is_not_alive_after_a_while():
    assert beat(Renewer(REFUSES, age=REFUSED_SECONDS - 1)).alive
    found = beat(Renewer(REFUSES, age=REFUSED_SECONDS + 1))
    assert (found.alive, found.reason) == (False, "Redis refuses this worker: no permission")


def test_a_process_whose_leases_are_not_renewed_is_not_alive():
    assert beat(Renewer(ANSWERS, round_age=ROUND_SECONDS - 1)).alive
    assert not beat(Renewer(ANSWERS, round_age=ROUND_SECONDS + 1)).alive


def test_a_process_that_loads_its_model_is_alive_and_does_not_consume():
    found = beat(Renewer(ANSWERS, age=10_000), stage="loading m")
    assert found == Beat(consumes=False, reason="loading m")


def test_a_process_that_has_not_yet_looked_for_messages_does_not_consume():
    assert not beat(Renewer(ANSWERS), polls=False).consumes


# --- with a real Redis ----------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as running:
        with running.client as client:
            client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "+@all", "~*", "&*")
        yield running


@contextmanager
def beating(server: RedisServer, tmp_path) -> Iterator[Heartbeat]:
    """The heartbeat of a process whose user of Redis is ``w``."""
    url = server.url.replace("redis://", "redis://w:pw@")
    redis = redis_client(url, answer_seconds=0.5, retries=0)
    renewer = LeaseRenewer(Ledger(redis), WORKER)
    heartbeat = Heartbeat(tmp_path / "beat")
    heartbeat.stage = None
    heartbeat.watch(renewer, lambda: True)
    renewer.start()
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        renewer.stop()
        redis.close()


def beat_in(folder: Path) -> Beat:
    return read_beat(folder / "beat") or Beat(consumes=False, reason="none yet")


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(lease_renewer, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease_renewer, "RETRY_SECONDS", 0.1)


@pytest.mark.parametrize("loss", ["-set", "off", "resetkeys"])
def test_a_user_that_lost_a_right_or_its_access_makes_the_process_not_alive(
    server, tmp_path, monkeypatch, loss
):
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.5)
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.1)
    with beating(server, tmp_path), server.client as client:
        wait_until(lambda: beat_in(tmp_path).consumes, 10)
        client.execute_command("ACL", "SETUSER", "w", loss)
        client.execute_command("CLIENT", "KILL", "USER", "w")
        wait_until(lambda: not beat_in(tmp_path).alive, 20)
        assert "Redis refuses this worker" in beat_in(tmp_path).reason
        client.execute_command("ACL", "SETUSER", "w", "on", "+@all", "~*")
        wait_until(lambda: beat_in(tmp_path).consumes, 20)


def test_a_redis_that_ends_leaves_the_process_alive(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.1)
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.1)
    with beating(server, tmp_path):
        wait_until(lambda: beat_in(tmp_path).consumes, 10)
        server.close()
        wait_until(lambda: beat_in(tmp_path).reason == "waiting for Redis", 20)
        time.sleep(0.5)
        assert beat_in(tmp_path).alive
