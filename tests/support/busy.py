"""A fleet that takes and acknowledges messages all the time, as far as one worker can see."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from common.wire.queues import KEY_PREFIX

UNACKED = f"{KEY_PREFIX}unacked"


@contextmanager
def busy_fleet(redis: Redis) -> Iterator[None]:
    """Have others' messages come and go among the unacknowledged ones, between any two commands
    of another client, until the block ends.
    """
    over = threading.Event()
    connection = redis.connection_pool.get_connection()
    take = ("HSET", UNACKED, "tag of another", "message of another")
    acknowledge = ("HDEL", UNACKED, "tag of another")
    commands = connection.pack_commands([take, acknowledge] * 50)

    def send() -> None:
        while not over.is_set():
            connection.send_packed_command(commands)

    connection.send_command("CLIENT", "REPLY", "OFF")  # nobody would read them
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        connection.send_command("CLIENT", "REPLY", "ON")
        connection.read_response()  # after all that was sent
        redis.connection_pool.release(connection)
