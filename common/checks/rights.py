"""The commands of Redis that a part of the fleet gives, and which of them its user lacks."""

from collections.abc import Iterator, Sequence
from typing import Literal

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from common.wire.first_contact import RIGHTS_KEY
from common.wire.queues import KEY_PREFIX

Role = Literal["producer", "worker"]

#: A key of the fleet's that is not there, and does not come to be.
KEY = f"{KEY_PREFIX}doctor"

#: A hash that no script has.
NO_SCRIPT = 40 * "0"

Command = tuple[str | int, ...]

#: The beginning and the end of a transaction that does nothing.
BEGIN: Command = ("MULTI",)
END: Command = ("DISCARD",)

#: Commands that no transaction takes.
ALONE = {"WATCH"}

#: What every part of the fleet gives, the scripts of the ledger included.
COMMON: tuple[Command, ...] = (
    ("PING",),
    ("TIME",),
    ("EVAL", "return 1", 1, KEY),
    ("EVALSHA", NO_SCRIPT, 1, KEY),
    ("SCRIPT", "LOAD", "return 1"),
    ("SCRIPT", "EXISTS", NO_SCRIPT),
    ("GET", KEY),
    ("SET", KEY, ""),
    ("DEL", KEY),
    ("EXISTS", KEY),
    ("EXPIRE", KEY, 1),
    ("PTTL", KEY),
    ("MGET", KEY),
    ("SCAN", 0),
    ("GETBIT", KEY, 0),
    ("SETBIT", KEY, 0, 0),
    ("BITCOUNT", KEY),
    ("HGET", KEY, ""),
    ("HMGET", KEY, ""),
    ("HGETALL", KEY),
    ("HSET", KEY, "", ""),
    ("HSETNX", KEY, "", ""),
    ("HDEL", KEY, ""),
    ("HINCRBY", KEY, "", 0),
    ("ZADD", KEY, 0, ""),
    ("ZREM", KEY, ""),
    ("ZSCORE", KEY, ""),
    ("ZCOUNT", KEY, 0, 0),
    ("ZRANGE", KEY, 0, 0),
    ("ZRANGEBYSCORE", KEY, 0, 0),
    ("SADD", KEY, ""),
    ("SMEMBERS", KEY),
    ("LLEN", KEY),
    ("LPUSH", KEY, ""),
    ("LTRIM", KEY, 0, 0),
)

#: What submits, watches and keeps jobs.
PRODUCER: tuple[Command, ...] = (
    ("ZREVRANGE", KEY, 0, 0),
    ("LRANGE", KEY, 0, 0),
    ("LMOVE", KEY, KEY, "LEFT", "RIGHT"),
    ("LREM", KEY, 0, ""),
    ("HVALS", KEY),
)


def worker_commands(db: int) -> tuple[Command, ...]:
    """Return what Celery gives for a worker: its queues, and its channels with their names."""
    return (
        ("BRPOP", KEY, 1),
        ("RPOP", KEY),
        ("RPUSH", KEY, ""),
        ("WATCH", KEY),
        ("UNWATCH",),
        ("PEXPIRE", KEY, 1),
        ("ZREVRANGEBYSCORE", KEY, 0, 0),
        ("HEXISTS", KEY, ""),
        ("HLEN", KEY),
        ("TYPE", KEY),
        ("SREM", KEY, ""),
        ("PUBLISH", f"{KEY_PREFIX}/{db}.celeryev/worker.heartbeat", ""),
        ("PSUBSCRIBE", f"{KEY_PREFIX}/{db}.celery.pidbox"),
        ("PUBLISH", RIGHTS_KEY, ""),
        ("PSUBSCRIBE", RIGHTS_KEY),
        ("PUNSUBSCRIBE", RIGHTS_KEY),
        ("SUBSCRIBE", RIGHTS_KEY),
        ("UNSUBSCRIBE", RIGHTS_KEY),
    )


def commands_of(role: Role, db: int) -> tuple[Command, ...]:
    return (*COMMON, *(PRODUCER if role == "producer" else worker_commands(db)))


def refused(redis: Redis, commands: Sequence[Command]) -> Iterator[tuple[Command, str]]:
    """Yield the commands that the user may not give, with Redis's words.

    They are queued in a transaction that is then discarded: Redis looks at a user's rights when it
    queues a command, and nothing is run. Those that cannot be queued come first; they do nothing
    alone.
    """
    connection = redis.connection_pool.get_connection()
    alone = [command for command in commands if command[0] in ALONE]
    queued = [command for command in commands if command[0] not in ALONE]
    try:
        for command in (*alone, BEGIN, *queued, END):
            connection.send_command(*command)
            try:
                connection.read_response()
            except NoPermissionError as error:
                if command != END:  # which ends with the connection as well
                    yield command, str(error)
                if command == BEGIN:  # without a transaction they would be run
                    return
            except ResponseError:  # such as of a server without memory
                if command == BEGIN:
                    raise
    finally:
        connection.disconnect()
        redis.connection_pool.release(connection)


def words_of(command: Command) -> str:
    """Return a command's name, and the channel if it has one: a right of its own."""
    if str(command[0]) in {"PUBLISH", "PSUBSCRIBE"}:
        return f"{command[0]} {command[1]}"
    return f"SCRIPT {command[1]}" if command[0] == "SCRIPT" else str(command[0])
