"""The broker: one Redis, the Celery application on it, and the queues' names.

The settings are those that Celery on Redis needs to lose nothing and to keep a GPU busy; each was
measured with celery and kombu 5.7 (``docs/formats.md`` names the queues).
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu import Producer
from kombu.exceptions import KombuError
from kombu.utils.uuid import uuid
from redis.exceptions import ConnectionError as RedisConnectionError

from common.model_specs import ModelSource
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX, kombu_queue, queue_name
from common.wire.signing import MessageKeys

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
        task_queues=[kombu_queue(name) for name in queues],
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
                queue = queue_name(model, batch.first_rung, batch.rung, batch.priority)
                send(producer, queue, batch, keys)
                count += 1
    except KombuError as error:
        raise RedisConnectionError(str(error)) from error
    return count


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
