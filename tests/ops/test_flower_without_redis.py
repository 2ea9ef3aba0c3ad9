"""Flower while Redis is away: it answers, and goes on once Redis is back."""

import time

import pytest

from common.wire.celery_app import make_celery
from tests.support.flower import Flower, running_flower
from tests.support.processes import clean_environment, wait_until
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.slow

#: Seconds that Redis is away. Flower by itself would try again after 60 and 100 seconds or so.
AWAY_SECONDS = 70


def hear(flower: Flower, redis: RedisServer, worker: str, seconds: float) -> None:
    """Wait until a worker's event is shown."""
    app = make_celery(redis.url, [])
    with app.connection() as connection, app.events.Dispatcher(connection) as events:
        events.hostname = worker

        def is_shown() -> bool:
            events.send("worker-online")
            return worker in flower.ask("/workers?json=1")[1]

        wait_until(is_shown, seconds)


def test_flower_waits_for_redis_bears_with_its_absence_and_ends_while_it_is_frozen(tmp_path):
    redis = RedisServer(tmp_path / "redis")
    with running_flower(clean_environment(VIRNUCPRO_BROKER_URL=redis.url), tmp_path) as flower:
        assert flower.ask("/broker")[0] == 200
        assert flower.ask("/api/queues/length")[0] == 503
        assert "Waiting for Redis. No Redis answers at" in flower.log.read_text()
        redis.start()
        hear(flower, redis, "first", 20)
        redis.kill()
        time.sleep(AWAY_SECONDS)
        assert flower.ask("/healthcheck") == (200, "OK")
        redis.start()
        hear(flower, redis, "second", 20)
        redis.freeze()
        flower.ask("/workers?refresh=1")
        flower.process.terminate()
        assert flower.process.wait(10) == 0
        redis.close()
    assert "Traceback" not in flower.log.read_text()
