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

#: The retries of a client once connected: about half a minute, as long as a lease lasts, through a
#: refused connection or a failover. Each retry may include as many attempts to connect. A command
#: may run twice, which all commands of the fleet allow.
RETRY = Retry(
    ExponentialWithJitterBackoff(base=0.2, cap=2),
    retries=5,
    supported_errors=(RedisConnectionError, RedisTimeoutError, ReadOnlyError),
)


def redis_client(broker_url: str, *, answer_seconds: float = 15, retries: int = 10) -> Redis:
    """Return a client of the broker's Redis, which connects when it is first used.

    Args:
        answer_seconds: seconds to wait for an answer.
        retries: retries of a call before it fails; each may include as many attempts to connect.

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
    """Return a client of the broker's Redis, after one answer from it.

    Raises:
        UserError: no Redis answers there.
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
            "Start one (redis-server) or name yours (VIRNUCPRO_BROKER_URL); to embed on "
            "this machine alone, with nothing to start: producer submit INPUT --local, or "
            "Fleet.local() in Python"
        ) from error
    return client


def without_password(url: str) -> str:
    """Return a URL without its password, which may contain any character, even unescaped ones."""
    hidden = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", hidden)


def eviction_policy(redis: Redis) -> str | None:
    """Return the policy by which a full Redis evicts keys; None if it evicts none."""
    memory = redis.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return policy if memory.get("maxmemory") and policy != "noeviction" else None


def append_capped(redis: Redis, key: str, document: Document, kept: int) -> None:
    """Prepend a document to a list that keeps the newest ``kept``."""
    with redis.pipeline(transaction=True) as together:
        together.lpush(key, document.model_dump_json(exclude_none=True))
        together.ltrim(key, 0, kept - 1)
        together.execute()
