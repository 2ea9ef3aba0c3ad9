"""Clients of Redis whose look-ups of its name have a bound.

``socket.getaddrinfo`` has none of its own: while a name server hangs, it takes a minute or more,
whatever the timeout of the connection is.
"""

import os
import socket
import threading
from typing import Any

from redis import Redis
from redis.connection import Connection, SSLConnection

from common.bounded_call import BoundedCall
from common.wire.address import RedisAddress

Addresses = list[tuple[Any, ...]]

#: Seconds for a look-up of a connection that has no timeout.
LOOKUP_SECONDS = 5.0

#: The look-ups that run, by process and what they look up: the next attempt to connect waits for
#: one that hangs, instead of leaving another thread behind.
_running: dict[tuple[Any, ...], BoundedCall[Addresses]] = {}
_lock = threading.Lock()


def open_client(address: RedisAddress, **options: Any) -> Redis:
    """Return a client of a Redis, which connects when it is first used.

    Args:
        options: of redis-py's ``Redis``, beside the address.
    """
    client = Redis(**address.options(), decode_responses=True, **options)
    pool = client.connection_pool
    pool.connection_class = BOUNDED.get(pool.connection_class, pool.connection_class)
    return client


class BoundedConnection(Connection):
    """A connection that looks up its host within the time that it may take to connect."""

    def _connect(self) -> socket.socket:
        host, port = self.host, int(self.port)
        found = look_up(host, port, self.socket_type, self.socket_connect_timeout or LOOKUP_SECONDS)
        failure = OSError(f"{host} has no address")
        try:
            for *_, place in found:
                self.host = place[0]
                try:
                    return super()._connect()  # type: ignore[no-any-return, no-untyped-call]
                except OSError as error:
                    failure = error
        finally:
            self.host = host  # for which the certificate is checked
        raise failure


class BoundedTlsConnection(SSLConnection, BoundedConnection):
    """The same with TLS."""


BOUNDED: dict[type, type] = {Connection: BoundedConnection, SSLConnection: BoundedTlsConnection}


def look_up(host: str, port: int, family: int, seconds: float) -> Addresses:
    """Return the addresses of a host, as ``socket.getaddrinfo``.

    Raises:
        OSError: it has none, or they were not found in time.
    """
    key = os.getpid(), host, port, family
    with _lock:
        call = _running.get(key)
        if call is None:
            call = BoundedCall(lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
            _running[key] = call
    try:
        return call.result(seconds)
    except TimeoutError:
        reason = f"the name was not looked up within {seconds:.3g} s"
        raise socket.gaierror(socket.EAI_AGAIN, reason) from None
    finally:
        with _lock:
            if not call.is_running and _running.get(key) is call:
                del _running[key]
