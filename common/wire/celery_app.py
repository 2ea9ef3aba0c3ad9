"""The Celery application, and publishing on it.

The settings are those with which Celery on Redis loses no message and keeps a GPU busy; each was
measured with celery and kombu 5.7.
"""

import ast
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kombu import Connection, Producer
from kombu.exceptions import KombuError
from kombu.utils.json import dumps
from kombu.utils.uuid import uuid
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from common.model_source import ModelSource
from common.wire.address import RedisAddress
from common.wire.messages import Batch, Document
from common.wire.queues import KEY_PREFIX, Queues, batch_queue, kombu_queue, queue_name
from common.wire.signing import MessageKeys

if TYPE_CHECKING:
    from celery import Celery

EMBED_TASK = "virnucpro.embed"

#: The empty follow-up of every task, stated so that a message's headers cannot add one.
NOTHING_AFTERWARDS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: Messages published in one round trip.
PUBLISH_TOGETHER = 1000

#: Seconds after which Celery delivers an unacknowledged message again: a last resort, since the
#: ledger's leases recover a lost batch long before.
VISIBILITY_TIMEOUT = 3600

#: The lock of those who listen and take no batches, among the keys of events.
LISTENERS_MUTEX = "celeryev.mutex"

TRANSPORT_OPTIONS = {
    "visibility_timeout": VISIBILITY_TIMEOUT,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "unacked_restore_limit": 200,
    "unacked_mutex_expire": 30,
    # Without these four, a half-open connection is never noticed.
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "sep": ":",
    "queue_order_strategy": "priority",
    "global_keyprefix": KEY_PREFIX,
}


def make_celery(broker_url: str, queues: list[str], keys: MessageKeys | None = None) -> "Celery":
    """Create the Celery application that publishes to ``queues`` or consumes them.

    Its messages are signed with the first of ``keys``.

    Raises:
        UserError: not the address of a Redis.
    """
    from celery import Celery  # takes a while to import; a local run starts its worker before

    address = RedisAddress.parse(broker_url)
    app = Celery("virnucpro", broker=celery_url(address), set_as_current=False)
    app.conf.update(
        broker_use_ssl=address.tls,
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_create_missing_queues=False,
        task_queues=[kombu_queue(name) for name in queues],
        worker_prefetch_multiplier=1,
        worker_eta_task_limit=8,
        worker_send_task_events=True,
        broker_channel_error_retry=True,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        # Kombu compares connections, to share them, by these options and not by those of TLS.
        broker_transport_options=TRANSPORT_OPTIONS | {"tls": address.tls} | restoring(queues),
        # A setting of this project. Celery's logs hide settings with "key" in their name.
        message_keys=keys or MessageKeys(),
    )
    return app


def restoring(queues: list[str]) -> dict[str, int | str]:
    """Return the options by which an application that takes no batches requeues none of others.

    Kombu has whoever listens, Flower for instance, look for messages that were taken long ago, and
    take a lock meanwhile: here one of its own, so that it never keeps workers from looking.
    """
    if queues:
        return {}
    return {"unacked_restore_limit": 0, "unacked_mutex_key": LISTENERS_MUTEX}


def celery_url(address: RedisAddress) -> str:
    """Return an address in Celery's spelling. Its TLS options are Celery's ``broker_use_ssl``."""
    secret = "" if address.password is None else f":{quote(address.password, safe='')}"
    login = f"{quote(address.username or '', safe='')}{secret}"
    if address.socket is None:
        return address.spelling(login)
    path = quote(address.socket)
    return f"redis+socket://{login and f'{login}@'}{path}?virtual_host={address.db}"


def publish(app: "Celery", model: ModelSource, batches: Iterable[Batch]) -> int:
    """Publish batches of a model to their queues; return how many.

    Raises:
        RedisError: Redis is unreachable or full. Some batches may have been published; publishing
            them again is harmless.
    """
    keys: MessageKeys = app.conf.message_keys
    count = 0
    try:
        with app.producer_or_acquire() as producer, producer.batch(PUBLISH_TOGETHER):
            # The first message would take six seconds to find that Redis is unreachable.
            producer.connection.ensure_connection(**app.conf.task_publish_retry_policy)
            for batch in batches:
                queue = queue_name(model, batch.first_rung, batch.rung, batch.priority)
                send(producer, queue, batch, keys)
                count += 1
    except KombuError as error:
        raise RedisConnectionError(str(error)) from error
    return count


def publish_next(app: "Celery", redis: Redis, batch: Batch) -> None:
    """Publish a batch as the next one to be taken: it has waited before, and the queue may be long.

    Raises:
        RedisError: Redis is unreachable or full.
    """
    sent = publish(app, ModelSource.parse(batch.model), [batch])
    Queues(redis).move_to_front(batch_queue(batch), sent)


def send(producer: Producer, queue: str, batch: Batch, keys: MessageKeys) -> None:
    """Publish a batch to a queue, as a message of Celery's protocol 2 with its required fields.

    ``Celery.send_task`` takes four times as long and sends twice as many bytes.
    """
    task_id = uuid()
    headers = {
        "lang": "py",
        "task": EMBED_TASK,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
    }
    arguments = task_arguments(batch)
    producer.publish(
        ((), arguments, NOTHING_AFTERWARDS),
        serializer="json",
        routing_key=queue,
        headers=headers | keys.headers(arguments),
        correlation_id=task_id,
    )


def written(keys: MessageKeys, model: ModelSource, batches: Iterable[Batch]) -> Iterator[str]:
    """Yield the messages of batches as ``publish`` would leave them in their queues."""
    with Connection("memory://") as connection, connection.channel() as channel:
        producer = Producer(channel)
        for batch in batches:
            queue = queue_name(model, batch.first_rung, batch.rung, batch.priority)
            send(producer, queue, batch, keys)
            yield dumps(channel._get(queue))


def task_arguments(batch: Batch) -> dict[str, Any]:
    """Return a batch as the keyword arguments of its task, without default values."""
    return {"version": batch.version, **batch.model_dump(mode="json", exclude_defaults=True)}


class ShownBatch(Document):
    """What Flower shows of a batch's task; its search finds ``kwargs:job=NAME``."""

    job: str
    batch: int
    rung: str
    rows: int
    tokens: int | None = None  # None: not known

    @classmethod
    def of(cls, batch: Batch) -> "ShownBatch":
        return cls(
            job=batch.job,
            batch=batch.index,
            rung=str(batch.rung),
            rows=batch.records,
            tokens=batch.tokens,
        )

    @classmethod
    def read(cls, text: str | None) -> "ShownBatch | None":
        """Read what ``str`` made of it; None if the text is something else."""
        try:
            return cls.model_validate(ast.literal_eval(text or ""))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None

    def __str__(self) -> str:
        """Return the keyword arguments of a task as Celery writes them."""
        return repr(self.model_dump(exclude_none=True))
