"""The broker: one Redis, the Celery application on it, and the queues' names.

The settings are those that Celery on Redis needs to lose nothing and to keep a GPU busy; each was
measured with celery and kombu 5.7 (``docs/formats.md`` names the queues).
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from common.errors import UserError
from common.messages import Batch
from common.modeltable import ModelSource
from common.rungs import Rung

#: Before every key of the fleet, so that it can share a Redis while it is being tried.
KEY_PREFIX = "virnucpro:"

EMBED_TASK = "virnucpro.embed"

#: Messages that go to Redis in one round trip.
PUBLISH_TOGETHER = 1000

#: Seconds after which an unacknowledged message is given out again. The ledger's leases recover
#: a lost batch long before; this is the last resort.
VISIBILITY_TIMEOUT = 3600

TRANSPORT_OPTIONS = {
    "visibility_timeout": VISIBILITY_TIMEOUT,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "unacked_restore_limit": 200,
    "unacked_mutex_expire": 30,
    # A half-open connection is noticed; without these it never was.
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "sep": ":",
    "queue_order_strategy": "priority",
    "global_keyprefix": KEY_PREFIX,
}

#: Of a client that has answered once: it looks for half a minute, as long as a claim lasts, for a
#: Redis that refuses connections, and again where one became a replica and another took its place.
#: A command may arrive twice so; all that is sent here may.
RETRY = Retry(
    ExponentialBackoff(cap=1.0, base=0.1),
    retries=30,
    supported_errors=(RedisConnectionError, RedisTimeoutError, ReadOnlyError),
)


def queue_name(model: ModelSource, first: Rung, rung: Rung) -> str:
    """The queue of a model's batches at a rung of the ladder that begins at ``first``.

    Such as ``esm2_t33_650M_UR50D.fp16``, and ``esm2_t33_650M_UR50D.fp16.fp32`` for retries.
    """
    return f"{model.queue}.{first}" if rung is first else f"{model.queue}.{first}.{rung}"


def queue_of(name: str) -> Queue:
    """The queue as Celery wants it described, the same to publish and to consume."""
    return Queue(name, routing_key=name)


def make_celery(broker_url: str, queues: list[str]) -> Celery:
    """The Celery application, for publishing to ``queues`` or consuming them."""
    app = Celery("virnucpro", broker=celery_url(broker_url), set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_create_missing_queues=False,
        task_queues=[queue_of(name) for name in queues],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_eta_task_limit=8,
        worker_send_task_events=True,
        broker_channel_error_retry=True,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options=TRANSPORT_OPTIONS,
    )
    return app


def celery_url(url: str) -> str:
    """Celery's spelling of a ``unix:///path?db=0`` URL; others are the same in both."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


def publish(app: Celery, model: ModelSource, batches: Iterable[Batch]) -> int:
    """Send batches of a model to their queues; returns how many.

    Raises:
        RedisError: Redis is away or full. Some may have been sent; to send them again is no harm.
    """
    count = 0
    try:
        with app.producer_or_acquire() as producer, producer.batch(PUBLISH_TOGETHER):
            for batch in batches:
                app.send_task(
                    EMBED_TASK,
                    kwargs=batch.model_dump(mode="json"),
                    queue=queue_of(queue_name(model, batch.first, batch.rung)),
                    producer=producer,
                )
                count += 1
    except KombuError as error:
        raise RedisConnectionError(str(error)) from error
    return count


def connect(broker_url: str) -> Redis:
    """A client of the broker's Redis that has answered once.

    Raises:
        UserError: nothing there that answers as Redis does.
    """
    try:
        client = Redis.from_url(
            broker_url,
            decode_responses=True,
            socket_timeout=15,
            socket_connect_timeout=5,
            health_check_interval=10,
        )
        client.ping()
        client.set_retry(RETRY)
    except (RedisError, OSError, ValueError) as error:
        # A ValueError quotes the URL, in which anything may be a part of the password.
        why = "not a Redis URL" if isinstance(error, ValueError) else error
        raise UserError(
            f"No Redis answers at {without_password(broker_url)} ({why}).\n"
            "Start one (redis-server) or name yours (--broker or VIRNUCPRO_BROKER_URL); "
            "to embed on this machine alone, with nothing to start: producer submit INPUT --local"
        ) from error
    return client


def without_password(url: str) -> str:
    """The URL for people's eyes. A password may have any sign in it, well-formed URL or not."""
    hidden = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", hidden)
