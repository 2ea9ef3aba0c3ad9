"""A busy fleet, simulated: messages are taken and acknowledged all the time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from common.wire.queues import KEY_PREFIX

UNACKED = f"{KEY_PREFIX}unacked"


@contextmanager
def busy_fleet(redis: Redis) -> Iterator[None]:
    """Add and remove unacknowledged messages all the time, until the block ends."""
    over = threading.Event()
    connection = redis.connection_pool.get_connection()
    take = ("HSET", UNACKED, "tag of another", "message of another")
    acknowledge = ("HDEL", UNACKED, "tag of another")
    commands = connection.pack_commands([take, acknowledge] * 50)

    def send() -> None:
        while not over.is_set():
            connection.send_packed_command(commands)

    connection.send_command("CLIENT", "REPLY", "OFF")  # no client reads the replies
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        connection.send_command("CLIENT", "REPLY", "ON")
        connection.read_response()  # once every command has run
        redis.connection_pool.release(connection)
