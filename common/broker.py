"""The broker: one Redis, the Celery application on it, and the queues' names.

The settings are those that Celery on Redis needs to lose nothing and to keep a GPU busy; each was
measured with celery and kombu 5.7 (``docs/formats.md`` names the queues).
"""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu import Producer, Queue
from kombu.exceptions import KombuError
from kombu.utils.uuid import uuid
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from common.errors import UserError
from common.messages import Batch, Priority
from common.modeltable import ModelSource
from common.rungs import Rung
from common.signing import MessageKeys

#: Before every key of the fleet, so that it can share a Redis while it is being tried.
KEY_PREFIX = "virnucpro:"

EMBED_TASK = "virnucpro.embed"

#: What Celery is to do after a task. Left out, a message's headers could say something else.
NOTHING_AFTERWARDS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

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

#: Of a client that has answered once: it looks for about half a minute, as long as a claim lasts,
#: for a Redis that refuses connections, and again where one became a replica and another took its
#: place. Each try to send may have as many tries to connect in it. A command may arrive twice so;
#: all that is sent here may.
RETRY = Retry(
    ExponentialWithJitterBackoff(base=0.2, cap=2),
    retries=5,
    supported_errors=(RedisConnectionError, RedisTimeoutError, ReadOnlyError),
)


def queue_name(
    model: ModelSource, first: Rung, rung: Rung, priority: Priority = Priority.NORMAL
) -> str:
    """The queue of a model's batches at a rung of the ladder that begins at ``first``.

    Such as ``esm2_t33_650M_UR50D.fp16``, and ``esm2_t33_650M_UR50D.fp16.fp32`` for retries; with
    ``high.`` or ``low.`` before it unless the priority is normal.
    """
    before = "" if priority is Priority.NORMAL else f"{priority}."
    return f"{before}{model.queue}.{first}" + ("" if rung is first else f".{rung}")


def queue_of_batch(batch: Batch) -> str:
    """The queue that a batch is sent to."""
    return queue_name(ModelSource.parse(batch.model), batch.first, batch.rung, batch.priority)


def queue_of(name: str) -> Queue:
    """The queue as Celery wants it described, the same to publish and to consume."""
    return Queue(name, routing_key=name)


def make_celery(broker_url: str, queues: list[str], keys: MessageKeys | None = None) -> Celery:
    """The Celery application, for publishing to ``queues`` or consuming them.

    What it publishes is signed with the first of ``keys``.
    """
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
        message_keys=keys or MessageKeys(),  # ours; Celery shows no setting with such a name
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
    keys: MessageKeys = app.conf.message_keys
    count = 0
    try:
        with app.producer_or_acquire() as producer, producer.batch(PUBLISH_TOGETHER):
            # Left to the first message, it takes six seconds to see that Redis is away.
            producer.connection.ensure_connection(**app.conf.task_publish_retry_policy)
            for batch in batches:
                queue = queue_name(model, batch.first, batch.rung, batch.priority)
                send(producer, queue, batch, keys)
                count += 1
    except KombuError as error:
        raise RedisConnectionError(str(error)) from error
    return count


def redis_client(broker_url: str, *, answer_seconds: float = 15, retries: int = 10) -> Redis:
    """A client of the broker's Redis, which connects when it is first used.

    Args:
        answer_seconds: that Redis has for an answer.
        retries: before a call fails; to connect again, which each of them may have to, is tried
            as often.

    Raises:
        ValueError: not a Redis URL.
    """
    return Redis.from_url(
        broker_url,
        decode_responses=True,
        socket_timeout=answer_seconds,
        socket_connect_timeout=min(5, answer_seconds),
        health_check_interval=10,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=1), retries),
    )


def send(producer: Producer, queue: str, batch: Batch, keys: MessageKeys) -> None:
    """Put a batch into a queue, as a message of Celery's protocol 2.

    Not by ``Celery.send_task``, which takes four times as long and sends twice as much: the
    fields that a protocol 2 message must have are here, the others would say nothing.
    """
    task_id = uuid()
    headers = {
        "lang": "py",
        "task": EMBED_TASK,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "kwargsrepr": f"{batch.job} {batch.index}.{batch.rung}",  # what Flower shows
    }
    arguments = arguments_of(batch)
    producer.publish(
        ((), arguments, NOTHING_AFTERWARDS),
        serializer="json",
        routing_key=queue,
        headers=headers | keys.headers(arguments),
        correlation_id=task_id,
    )


def arguments_of(batch: Batch) -> dict[str, Any]:
    """A batch as the keyword arguments of its task; what is as by default goes without saying."""
    return {"version": batch.version, **batch.model_dump(mode="json", exclude_defaults=True)}


def connect(broker_url: str) -> Redis:
    """A client of the broker's Redis that has answered once.

    Raises:
        UserError: nothing there that answers as Redis does.
    """
    try:
        client = redis_client(broker_url)
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
