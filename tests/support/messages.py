"""Messages in their queues: valid ones, and invalid ones from other programs."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis

from common.model_source import ModelSource
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX, queue_name
from common.wire.signing import MessageKeys


def queued_item(redis: Redis, url: str, batch: Batch, keys: MessageKeys | None = None) -> bytes:
    """Return the message that the producer sends, as read from its queue."""
    model = ModelSource.parse(batch.model)
    publish(make_celery(url, [], keys), model, [batch])
    return redis.lpop(f"{KEY_PREFIX}{queue_name(model, batch.first_rung, batch.rung)}").encode()


def with_values(item: bytes, values: Mapping[Sequence[str], Any]) -> bytes:
    """Return a message with other values at some paths in its envelope."""
    message = json.loads(item)
    for path, value in values.items():
        where = message
        for name in path[:-1]:
            where = where[name]
        where[path[-1]] = value
    return json.dumps(message).encode()


def body_of(item: bytes) -> list[Any]:
    return json.loads(b64decode(json.loads(item)["body"]))


def with_body(item: bytes, body: Any) -> bytes:
    """Return a message with another body, which need not be valid JSON."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return with_values(item, {("body",): b64encode(text).decode()})


def with_batch(item: bytes, **values: Any) -> bytes:
    """Return a message about another batch, with the old signature."""
    arguments, batch, sequel = body_of(item)
    return with_body(item, [arguments, batch | values, sequel])
