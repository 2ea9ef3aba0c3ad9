"""The whole consumer of a worker: whether it counts as one that looks for messages."""

import subprocess
import sys

from common.model_specs import ModelSource
from common.wire.celery_app import make_celery, publish
from common.wire.queues import queue_name
from tests.support.jobs import manifest_of
from tests.support.processes import clean_environment
from workers.transport.consumer import THREADS

MANIFEST = manifest_of([1] * (THREADS + 1))
MODEL = ModelSource.parse(MANIFEST.model)
BATCHES = [MANIFEST.batch(number) for number in range(MANIFEST.batches)]
QUEUE = queue_name(MODEL, BATCHES[0].first_rung, BATCHES[0].rung)

#: A worker whose batches never end. It prints how many it has and the seconds since its last turn.
WORKER = """
import os, sys, threading, time
from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery
from common.wire.redis_client import connect
from common.wire.signing import MessageKeys
from workers.transport.consumer import consume
from workers.transport.guard import Guard, install_guard

url, queue, batches, seconds = *sys.argv[1:3], int(sys.argv[3]), float(sys.argv[4])
app, taken = make_celery(url, [queue]), []
guard = Guard(Ledger(connect(url)), MessageKeys(), "w")
install_guard(app, guard)
guard.note_turn()

def run(batch):
    taken.append(batch)
    threading.Event().wait()

def end():
    while len(taken) < batches:
        time.sleep(0.05)
    time.sleep(seconds)
    print(len(taken), guard.idle_seconds(), flush=True)
    os._exit(0)

threading.Thread(target=end, daemon=True).start()
consume(app, [queue], "w", run=run, on_stop=lambda: None)
"""


def batches_and_idle_seconds(url: str, *, batches: int, seconds: float) -> tuple[int, float]:
    """Return a worker's number of batches ``seconds`` after it took some, and how long it idles."""
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, url, QUEUE, str(batches), str(seconds)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    taken, idle = ended.stdout.split()
    return int(taken), float(idle)


def test_a_worker_all_of_whose_threads_are_busy_is_not_idle_and_takes_nothing_more(
    redis, redis_url
):
    publish(make_celery(redis_url, []), MODEL, BATCHES)
    taken, idle = batches_and_idle_seconds(redis_url, batches=THREADS, seconds=3)
    assert taken == THREADS
    assert idle < 2


def test_a_worker_without_the_right_to_take_messages_is_idle(redis, redis_url):
    user = {"enabled": True, "nopass": True, "keys": ["*"], "channels": ["*"]}
    redis.acl_setuser("mute", **user, commands=["+@all", "-brpop"])
    url = redis_url.replace("unix://", "unix://mute:x@").replace("redis://", "redis://mute:x@")
    _, idle = batches_and_idle_seconds(url, batches=0, seconds=3)
    assert idle > 2
