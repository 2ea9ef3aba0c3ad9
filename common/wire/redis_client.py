"""Connections to the fleet's Redis."""

from contextlib import suppress
from datetime import UTC, datetime

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from common.wire.address import RedisAddress
from common.wire.first_contact import check_usable, wait_until_usable
from common.wire.lookups import open_client
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
        UserError: not the address of a Redis.
    """
    return open_client(
        RedisAddress.parse(broker_url),
        socket_timeout=answer_seconds,
        socket_connect_timeout=min(5, answer_seconds),
        health_check_interval=10,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=1), retries),
    )


def connect(broker_url: str, *, as_worker: bool = False, wait: bool = False) -> Redis:
    """Return a client of the broker's Redis, after an answer from it.

    Args:
        as_worker: whether the client is to take messages and send events.
        wait: whether to wait for a Redis that does not answer, for as long as it takes.

    Raises:
        UserError: it cannot be used, and why; said within ten seconds.
    """
    check = wait_until_usable if wait else check_usable
    check(RedisAddress.parse(broker_url), as_worker=as_worker)
    return lasting_client(broker_url)


def lasting_client(broker_url: str) -> Redis:
    """Return a client that bears with a Redis that is away for a while; see ``RETRY``.

    Raises:
        UserError: not the address of a Redis.
    """
    client = redis_client(broker_url)
    client.set_retry(RETRY)
    return client


def eviction_policy(redis: Redis) -> str | None:
    """Return the policy by which a full Redis evicts keys; None if it evicts none."""
    memory = redis.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return policy if memory.get("maxmemory") and policy != "noeviction" else None


def has_memory_left(redis: Redis) -> bool:
    """Return whether Redis accepts writes, as far as it tells."""
    with suppress(ResponseError):  # some servers do not support INFO
        memory = redis.info("memory")
        limit = int(memory.get("maxmemory", 0))
        return not limit or int(memory.get("used_memory", 0)) < limit
    return True


def redis_time(redis: Redis) -> datetime:
    """Return Redis's time, which all processes share."""
    seconds, microseconds = redis.time()
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def append_capped(redis: Redis, key: str, document: Document, kept: int) -> None:
    """Prepend a document to a list that keeps the newest ``kept``."""
    with redis.pipeline(transaction=True) as together:
        together.lpush(key, document.model_dump_json(exclude_none=True))
        together.ltrim(key, 0, kept - 1)
        together.execute()
