"""The events of a worker's tasks for Flower: all of them, several in a message."""

import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.million import MODEL, run_worker, running, spawn
from common.ledger.ledger import Ledger
from common.local.embedded_redis import redis_server
from common.wire.celery_app import make_celery, publish
from common.wire.redis_client import connect
from producer.scheduling.opening import job_queue
from tests.support.jobs import manifest_of
from tests.support.processes import START_SECONDS, wait_until

MANIFEST = manifest_of([1] * 40, model=MODEL.text)


@pytest.fixture
def broker_url():
    # A socket's path may have 100 characters; pytest's folders have more.
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        socket = Path(folder, "redis.sock")
        with redis_server(socket):
            yield f"unix://{socket}?db=0"


def test_every_event_of_every_task_is_sent_and_many_together(broker_url, tmp_path):
    app, redis = make_celery(broker_url, []), connect(broker_url)
    ledger, heard = Ledger(redis), Counter()
    ledger.jobs.create(MANIFEST, job_queue(MANIFEST))

    def listen() -> None:
        with app.connection() as connection, suppress(Exception):  # Redis ends before it does
            handlers = {"*": lambda event: heard.update([event["type"]])}
            app.events.Receiver(connection, handlers=handlers).capture(limit=None, timeout=60)

    threading.Thread(target=listen, daemon=True).start()
    worker = spawn.Process(
        target=run_worker, args=(broker_url, MANIFEST.batches, 0, tmp_path / "worker.log")
    )
    with running(worker):
        wait_until(lambda: heard["worker-online"], START_SECONDS)
        published = redis.info("commandstats")["cmdstat_publish"]["calls"]
        publish(app, MODEL, map(MANIFEST.batch, range(MANIFEST.batches)))
        wait_until(lambda: ledger.jobs.progress(MANIFEST.job).finished, START_SECONDS)
    kinds = ("task-received", "task-started", "task-succeeded")
    wait_until(lambda: all(heard[kind] == MANIFEST.batches for kind in kinds), 10)
    assert redis.info("commandstats")["cmdstat_publish"]["calls"] - published < MANIFEST.batches
