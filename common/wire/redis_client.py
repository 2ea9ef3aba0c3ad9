"""Connections to the fleet's Redis."""

import re

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from common.errors import UserError
from common.wire.messages import Document

#: Of a client that has answered once: it looks for about half a minute, as long as a claim lasts,
#: for a Redis that refuses connections, and again where one became a replica and another took its
#: place. Each try to send may have as many tries to connect in it. A command may arrive twice so;
#: all that is sent here may.
RETRY = Retry(
    ExponentialWithJitterBackoff(base=0.2, cap=2),
    retries=5,
    supported_errors=(RedisConnectionError, RedisTimeoutError, ReadOnlyError),
)


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


def eviction_policy(redis: Redis) -> str | None:
    """The policy by which this Redis throws keys away when it is full; None if it does not."""
    memory = redis.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return policy if memory.get("maxmemory") and policy != "noeviction" else None


def append_capped(redis: Redis, key: str, document: Document, kept: int) -> None:
    """Put a document first in a list, and drop what is beyond the first ``kept``."""
    with redis.pipeline(transaction=True) as together:
        together.lpush(key, document.model_dump_json(exclude_none=True))
        together.ltrim(key, 0, kept - 1)
        together.execute()
