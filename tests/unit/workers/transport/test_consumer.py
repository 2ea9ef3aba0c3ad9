"""The whole consumer of a worker: whether it counts as one that looks for messages."""

import subprocess
import sys

from common.model_source import ModelSource
from common.wire.celery_app import make_celery, publish
from common.wire.queues import queue_name
from tests.support.jobs import manifest_of
from tests.support.processes import clean_environment
from tests.support.redis_servers import running_redis
from tests.support.tcp_proxy import tcp_proxy
from workers.transport.consumer import THREADS

MANIFEST = manifest_of([1] * (THREADS + 1))
MODEL = ModelSource.parse(MANIFEST.model)
BATCHES = [MANIFEST.batch(number) for number in range(MANIFEST.batches)]
QUEUE = queue_name(MODEL, BATCHES[0].first_rung, BATCHES[0].rung)
WORKER = "tests.support.endless_worker"


def batches_and_idle_seconds(url: str, *, batches: int, seconds: float) -> tuple[int, float]:
    """Return a worker's number of batches ``seconds`` after it took some, and how long it idles."""
    ended = subprocess.run(
        [sys.executable, "-m", WORKER, url, QUEUE, str(batches), str(seconds)],
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
    _, idle = batches_and_idle_seconds(url, batches=0, seconds=5)
    assert idle > 2


def test_a_worker_whose_connection_is_lost_time_and_again_is_idle_though_it_looks_in_between(
    redis, redis_url
):
    user = {"enabled": True, "nopass": True, "keys": ["*"], "channels": ["virnucpro:x"]}
    redis.acl_setuser("deaf", **user, commands=["+@all"])
    url = redis_url.replace("unix://", "unix://deaf:x@").replace("redis://", "redis://deaf:x@")
    _, idle = batches_and_idle_seconds(url, batches=0, seconds=7)
    assert idle > 3


def test_a_worker_that_declares_its_queues_at_a_slow_redis_is_not_idle(tmp_path):
    with running_redis(tmp_path) as server, tcp_proxy(server.port) as network:
        network.delay = 0.08  # in each direction: it looks for messages after 8 s
        url = f"redis://127.0.0.1:{network.port}/0"
        _, idle = batches_and_idle_seconds(url, batches=0, seconds=6)
    assert idle < 4.5
