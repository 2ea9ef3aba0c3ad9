"""What the Celery application does with the messages of others."""

import json

import pytest

from common.wire.celery_app import make_celery
from common.wire.queues import KEY_PREFIX

QUEUE = "tiny.fp16"


@pytest.fixture
def taken_long_ago(redis) -> str:
    """The tag of a message that a worker took, and has not acknowledged since 1970."""
    where = {"exchange": "", "routing_key": QUEUE}
    properties = {"delivery_info": where, "delivery_tag": "tag", "priority": 0}
    message = {"body": "", "headers": {}, "properties": properties}
    redis.hset(f"{KEY_PREFIX}unacked", "tag", json.dumps([message, "", QUEUE]))
    redis.zadd(f"{KEY_PREFIX}unacked_index", {"tag": 1.0})
    return "tag"


@pytest.mark.parametrize(("queues", "is_requeued"), [([], False), ([QUEUE], True)])
def test_only_an_application_that_takes_batches_requeues_those_of_a_worker_that_is_gone(
    redis_url, redis, taken_long_ago, queues, is_requeued
):
    """Flower and ``celery inspect`` listen too, but only workers requeue in one step."""
    with make_celery(redis_url, queues) as app, app.connection() as connection:
        channel = connection.default_channel
        channel.queue_declare(QUEUE)
        channel.qos.restore_visible(num=channel.unacked_restore_limit, interval=1)
        channel.close()
    assert redis.hexists(f"{KEY_PREFIX}unacked", taken_long_ago) is not is_requeued


@pytest.mark.parametrize(("queues", "is_theirs"), [([], False), ([QUEUE], True)])
def test_only_an_application_that_takes_batches_takes_the_lock_of_workers(
    redis_url, queues, is_theirs
):
    with make_celery(redis_url, queues) as app, app.connection() as connection:
        key = connection.default_channel.unacked_mutex_key
    assert (key == "unacked_mutex") is is_theirs
