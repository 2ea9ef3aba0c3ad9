"""What others can send to a worker past its queues: it neither ends nor stops taking batches."""

from celery import Celery

from common.wire.celery_app import make_celery
from common.wire.dead_letters import DeadLetters
from common.wire.queues import KEY_PREFIX
from tests.support.processes import wait_until

MODEL = "random:esm2_t6_8M_UR50D"
PIDBOX = f"{KEY_PREFIX}/0.celery.pidbox"


def test_orders_and_garbage_past_the_queues_change_nothing(fleet, examples, tmp_path):
    redis, ledger = fleet.ledger.redis, fleet.ledger
    app: Celery = make_celery(fleet.broker_url, [])
    redis.hset(f"{KEY_PREFIX}unacked", "tag", "garbage")
    redis.zadd(f"{KEY_PREFIX}unacked_index", {"tag": 1.0})
    with fleet.workers(MODEL, tmp_path) as (log,):
        (worker,) = ledger.workers.all()
        wait_until(lambda: not redis.exists(f"{KEY_PREFIX}unacked"), 30)
        wait_until(lambda: redis.publish(PIDBOX, "[]"), 30)  # once it listens
        app.control.broadcast("shutdown")
        app.control.cancel_consumer(worker.queues[0])
        app.control.pool_shrink(10)
        app.control.enable_events()  # changes nothing; Flower sends it every five seconds
        wait_until(lambda: DeadLetters(redis).count() >= 5, 30)
        assert app.control.ping(timeout=5)
        done = fleet.producer("submit", examples, "--model", MODEL, "-o", tmp_path / "out.h5")
        assert done.returncode == 0, done.stderr
        assert [w.name for w in ledger.workers.all()] == [worker.name]
    assert "Traceback" not in log.read_text()
    reasons = [letter.reason for letter in DeadLetters(redis).latest()]
    assert sum("do not obey" in reason for reason in reasons) == 3


def test_a_worker_goes_on_past_keys_of_the_wrong_type(fleet, examples, tmp_path):
    redis = fleet.ledger.redis
    with fleet.workers(MODEL, tmp_path) as (log,):
        (worker,) = fleet.ledger.workers.all()
        names = ["unacked", "unacked_index", *worker.queues[9:11]]
        for name in names:
            redis.delete(f"{KEY_PREFIX}{name}")
            redis.set(f"{KEY_PREFIX}{name}", "x")
        wait_until(lambda: DeadLetters(redis).count() >= len(names), 15)
        done = fleet.producer("submit", examples, "--model", MODEL, "-o", tmp_path / "out.h5")
        assert done.returncode == 0, done.stderr
        assert [w.name for w in fleet.ledger.workers.all()] == [worker.name]
    deleted = {letter.queue for letter in DeadLetters(redis).latest()}
    assert deleted == {f"{KEY_PREFIX}{name}" for name in names}
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("Connected to") == 1
