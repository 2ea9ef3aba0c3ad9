"""Whole jobs with the users of ``deploy/redis/users.acl``, over TLS with an own authority."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery
from common.wire.dead_letters import DeadLetters
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.flower import running_flower
from tests.support.overflow import RARE, overflow_a_hidden_unit
from tests.support.processes import (
    START_SECONDS,
    Fleet,
    Worker,
    fleet_at,
    is_ready,
    run,
    run_producer,
    running_keeper,
    running_worker,
    wait_until,
)
from tests.support.redis_servers import RedisServer
from tests.support.redis_users import SECRET, client_of, redis_with_users, url_of
from tests.support.results import load
from tests.support.tls import make_signed_certificate, tls_port

BATCHES = "--batch-tokens=300"

WORKER_DOCTOR = ["workers.cli", "doctor", "--gpus", "none", "--model", "random:esm2_t6_8M_UR50D"]


@dataclass(frozen=True)
class Roles:
    """A Redis, and the environment of each role."""

    server: RedisServer
    port: int
    authority: Path
    store: str

    def url(self, user: str) -> str:
        return url_of(user, self.port, authority=self.authority)

    def fleet(self, user: str) -> Fleet:
        return fleet_at(self.url(user), self.store)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.server.client)

    def producer(self, *words: object) -> str:
        done = run_producer(*words, environment=self.fleet("producer").environment)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def worker(self, model: Path, log: Path) -> Iterator[Worker]:
        environment = self.fleet("worker").environment
        with running_worker(model, log, environment, "--precision=fp16") as worker:
            wait_until(lambda: any(map(is_ready, self.ledger.workers.all())), START_SECONDS)
            yield worker

    def refusals(self) -> list[str]:
        """Return what Redis refused since the start: who, what, and where."""
        with self.server.client as client:
            log = client.execute_command("ACL", "LOG")
        return [f"{e['username']}: {e['reason']} {e['object']} ({e['context']})" for e in log]


@pytest.fixture(params=["valkey", pytest.param("redis", marks=pytest.mark.slow)], scope="module")
def roles(request, tmp_path_factory) -> Iterator[Roles]:
    """The embedded server, and, in slow tests, Redis's own."""
    program = None
    if request.param == "redis":
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("needs redis-server (apt install redis-server)")
    folder = tmp_path_factory.mktemp("roles")
    authority, certificate = make_signed_certificate(folder)
    with redis_with_users(folder, program) as server, tls_port(server.port, certificate) as port:
        yield Roles(server, port, authority, f"file://{folder}/store")


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory) -> Path:
    """A model for which a rare letter is not finite in FP16, so that it is retried."""
    model = random_fair_esm(TINY)
    overflow_a_hidden_unit(model)
    return save_fair_esm(model, tmp_path_factory.mktemp("weights") / "overflowing.pt")


def test_each_role_does_all_of_its_work_and_nothing_is_refused(roles, overflowing, tmp_path):
    fasta, other = tmp_path / "p.fasta", tmp_path / "q.fasta"
    letters = "LAGVSERTIDPKQNFYMHWC"
    lines = [f">p{n}\n{letters[n % 20 :]}{RARE if n % 9 == 0 else ''}{letters}" for n in range(40)]
    fasta.write_text("\n".join(lines))
    other.write_text("\n".join(lines[:20]))
    submit = ("submit", fasta, "--model", overflowing, BATCHES)
    roles.producer("init")
    job = roles.producer(*submit).strip()
    roles.producer("set-priority", job, "high")
    roles.producer("cancel", job)
    roles.producer("resume", job)
    logs = {name: tmp_path / f"{name}.log" for name in ("keeper", "worker")}
    environment = roles.fleet("keeper").environment
    with (
        running_keeper(logs["keeper"], environment),
        roles.worker(overflowing, logs["worker"]),
        hearing_as_flower(roles) as heard,
    ):
        ask_as_flower(roles)
        roles.server.client.lpush("virnucpro:tiny.fp16", "garbage")  # any queue
        queue = roles.ledger.jobs.progress(job).queue
        roles.server.client.lpush(f"virnucpro:{queue}", "garbage")
        roles.producer("watch", job)
        roles.producer("submit", other, "--model", overflowing, "-o", tmp_path / "q.h5")
        for words in (["status"], ["status", job], ["jobs"], ["quarantine", job], ["verify", job]):
            roles.producer(*words)
        doctors(roles)
        roles.producer("retry", job, "--damaged")
        roles.producer("fetch", job, "-o", tmp_path / "p.h5")
        wait_until(lambda: heard["task-succeeded"], 30)
        forget(roles, job)
        wait_until(lambda: roles.ledger.jobs.progress(job) is not None, 60)
        wait_until(lambda: DeadLetters(roles.server.client).count(), 30)
    roles.producer("dead-letters")
    roles.producer("dead-letters", "--clear")
    roles.producer("delete", job, "--yes")
    assert len(load(tmp_path / "p.h5")["rows"]) == 40
    assert len(load(tmp_path / "q.h5")["rows"]) == 20
    assert roles.refusals() == []
    assert not [name for name, log in logs.items() if SECRET in log.read_text()]


@pytest.mark.slow
def test_flower_shows_workers_and_queues_and_nothing_is_refused(roles, tiny, tmp_path):
    keeper, worker = tmp_path / "keeper.log", tmp_path / "worker.log"
    (tmp_path / "p.fasta").write_text(">one\nMKVLGAST\n")
    job = roles.producer("submit", tmp_path / "p.fasta", "--model", tiny).strip()
    queue = roles.ledger.jobs.progress(job).queue
    roles.server.client.execute_command("ACL", "LOG", "RESET")
    with (
        roles.worker(tiny, worker),
        running_keeper(keeper, roles.fleet("keeper").environment),
    ):
        look_at_flower(roles, queue, tmp_path)
    assert roles.refusals() == []


def doctors(roles: Roles) -> None:
    """Have each role's doctor try what it may do."""
    checks = json.loads(roles.producer("doctor", "--json"))
    assert "redis rights" in str(checks)
    for user, words in (("keeper", ["producer.cli", "doctor"]), ("worker", WORKER_DOCTOR)):
        done = run(*words, environment=roles.fleet(user).environment)
        assert SECRET not in done.stdout + done.stderr
        assert "this user may not" not in done.stdout + done.stderr


def ask_as_flower(roles: Roles) -> None:
    """Ask workers what Flower asks them."""
    ask = make_celery(roles.url("flower"), []).control.inspect(timeout=2)
    assert wait_until(ask.ping, START_SECONDS)
    assert ask.stats()
    assert ask.active_queues()


@contextmanager
def hearing_as_flower(roles: Roles) -> Iterator[Counter[str]]:
    """Count the events that Flower hears, until the block ends."""
    heard: Counter[str] = Counter()
    with make_celery(roles.url("flower"), []).connection() as connection:
        handlers = {"*": lambda event: heard.update([event["type"]])}
        receiver = make_celery(roles.url("flower"), []).events.Receiver(connection, handlers)
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False})
        thread.start()
        try:
            wait_until(lambda: heard["worker-heartbeat"], START_SECONDS)
            yield heard
        finally:
            receiver.should_stop = True
            thread.join()


def look_at_flower(roles: Roles, queue: str, folder: Path) -> None:
    """Look at workers and queues in Flower."""
    with running_flower(roles.fleet("flower").environment, folder) as flower:
        wait_until(lambda: flower.json("/workers?json=1")["data"], 30)
        wait_until(flower.asked_workers, 30)
        assert queue in str(flower.json("/api/queues/length"))


def forget(roles: Roles, job: str) -> None:
    """Delete all of a job in Redis, as if it was emptied; a keeper restores it from the store."""
    with roles.server.client as client:
        kept = client.scan_iter("virnucpro:kept:*")
        client.delete("virnucpro:jobs", *kept, *client.scan_iter(f"virnucpro:job:{job}*"))


def test_an_autoscaler_and_an_exporter_read_what_they_need(roles):
    with client_of("keda", roles.server) as keda:
        assert keda.llen("virnucpro:tiny.fp32") == 0
        count = "return redis.call('llen', KEYS[1])"  # as KEDA's scaler does
        assert keda.eval(count, 1, "virnucpro:tiny.fp32") == 0
        assert keda.hget("virnucpro:demand", "tiny.fp32") is None
    with client_of("metrics", roles.server) as metrics:
        assert metrics.info()["redis_version"]


#: What nobody but an administrator may do.
ORDERS = [
    "FLUSHALL", "KEYS *", "CONFIG GET *", "SHUTDOWN NOSAVE", "ACL LIST", "CLIENT LIST", "MONITOR",
    "SCRIPT FLUSH", "FUNCTION LIST", "REPLICAOF NO ONE", "SAVE", "SLOWLOG GET", "GET other:key",
    "PUBLISH other hello",
]  # fmt: skip

FORBIDDEN = {
    "producer": ["BRPOP virnucpro:q 1", "RPOP virnucpro:q", "PSUBSCRIBE *", "RENAME a b"],
    "keeper": ["BRPOP virnucpro:q 1", "RPOP virnucpro:q", "PSUBSCRIBE *"],
    "worker": ["LRANGE virnucpro:q 0 1", "LMOVE virnucpro:a virnucpro:b LEFT LEFT", "PSUBSCRIBE *"],
    "flower": [
        "LPUSH virnucpro:q x", "LRANGE virnucpro:q 0 1", "BRPOP virnucpro:q 1", "DEL virnucpro:q",
        "HSET virnucpro:job:a state open", "HGETALL virnucpro:job:a", "EVAL return 1 virnucpro:q",
        "SET virnucpro:unacked_mutex x",
    ],
    "keda": [
        "LPUSH virnucpro:q x", "HSET virnucpro:job:a state open", "DEL virnucpro:q",
        "LRANGE virnucpro:q 0 1", "PUBLISH virnucpro:rights x",
    ],
    "metrics": ["GET virnucpro:q", "LLEN virnucpro:q", "EXISTS virnucpro:q", "PSUBSCRIBE *"],
}  # fmt: skip


@pytest.mark.parametrize("user", FORBIDDEN)
def test_no_role_can_do_what_is_not_its_own(roles, user):
    with client_of(user, roles.server) as client:
        for order in (*ORDERS, *FORBIDDEN[user]):
            with pytest.raises(NoPermissionError):
                client.execute_command(*order.split())


def test_neither_does_a_script_do_what_its_sender_may_not(roles):
    refused = pytest.raises(ResponseError, match=r"no permissions to run|can't run this command")
    with client_of("keda", roles.server) as keda, refused:
        keda.eval("return redis.call('del', KEYS[1])", 1, "virnucpro:q")


def test_a_keeper_whose_user_may_not_keep_jobs_ends_and_says_what_is_lacking(roles):
    done = run_producer("keeper", "--metrics", "", environment=roles.fleet("worker").environment)
    assert done.returncode == 2
    assert "this user may not ZREVRANGE, LRANGE, LMOVE, LREM, HVALS" in done.stderr
    assert "keeper in deploy/redis/users.acl" in done.stderr
    assert SECRET not in done.stderr
