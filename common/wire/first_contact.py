"""The first contact with a Redis: whether the fleet can use it, and if not, what to change."""

import logging
import math
import ssl
import time
from collections.abc import Callable

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from common.errors import UserError, chain
from common.wire.address import RedisAddress
from common.wire.lookups import open_client
from common.wire.queues import KEY_PREFIX

log = logging.getLogger(__name__)

#: Seconds to wait for one answer of the first contact, and seconds for which a refused connection
#: is tried again: the server may be starting. Together they stay below ten.
ANSWER_SECONDS, TRY_SECONDS = 4.0, 3.0

#: Seconds between two attempts of a process that waits for its Redis, and between its lines.
WAIT_SECONDS, SAY_SECONDS = 1.0, 30.0

#: How the answer of a Redis begins that can serve nobody for a while: a script that runs for long,
#: a full disk, missing replicas, a failover.
FOR_A_WHILE = ("BUSY ", "MISCONF ", "NOREPLICAS ", "MASTERDOWN ")

#: A key that never exists, on which commands try a user's rights without changing anything.
RIGHTS_KEY = f"{KEY_PREFIX}rights"

START_ONE = (
    "Start one (redis-server) or name yours (VIRNUCPRO_BROKER_URL); to embed on this machine "
    "alone, with nothing to start: producer submit INPUT --local, or Fleet.local() in Python"
)


def check_usable(address: RedisAddress, *, as_worker: bool = False) -> None:
    """Check that a Redis answers, and lets this user do what the fleet needs.

    Args:
        as_worker: whether this user is to take messages and send events. Celery would reconnect for
            ever where it may not.

    Raises:
        UserError: it does not, and what to change; said within ten seconds.
    """
    deadline = time.monotonic() + TRY_SECONDS
    while True:
        try:
            return try_out(address, as_worker)
        except (RedisError, OSError) as error:
            if not may_pass(error) or time.monotonic() > deadline:
                raise UserError(explain(address, error)) from error
        time.sleep(0.1)


def wait_until_usable(
    address: RedisAddress,
    *,
    as_worker: bool = False,
    as_reader: bool = False,
    on_wait: Callable[[], None] = lambda: None,
) -> None:
    """Wait until a Redis answers, with a line in the log every ``SAY_SECONDS``.

    Args:
        as_worker: see ``check_usable``.
        as_reader: whether this user changes nothing of the fleet, and need not have the right to.
        on_wait: called after each attempt that fails.

    Raises:
        UserError: it answers and cannot be used, or never will by this address.
    """
    said = -math.inf
    while True:
        problem = passing_problem(address, as_worker=as_worker, as_reader=as_reader)
        if problem is None:
            return
        on_wait()
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            log.warning("Waiting for Redis. %s", problem)
        time.sleep(WAIT_SECONDS)


def passing_problem(
    address: RedisAddress, *, as_worker: bool = False, as_reader: bool = False
) -> str | None:
    """Return why a Redis cannot be used now, but may be later; None if it can.

    Raises:
        UserError: it answers and cannot be used, or never will by this address.
    """
    try:
        try_out(address, as_worker, as_reader)
    except (RedisError, OSError) as error:
        problem = explain(address, error)
        if not may_come(address, error):
            raise UserError(problem) from error
        return problem.partition("\n")[0]
    return None


def try_out(address: RedisAddress, as_worker: bool, as_reader: bool = False) -> None:
    with open_client(
        address,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        if as_reader:
            client.exists(RIGHTS_KEY)
            return
        mode = server_mode(client)
        if mode != "standalone":
            raise UserError(
                f"The Redis at {address} runs as a {mode}, which is not supported: name one server "
                "that stands alone, or the primary that Sentinel watches."
            )
        client.eval("return redis.call('HDEL', KEYS[1], '')", 1, RIGHTS_KEY)
        if as_worker:
            try_taking(client)


def try_taking(client: Redis) -> None:
    """Take a message from a queue that does not exist, send an event, and listen for commands."""
    with client.pipeline(transaction=True) as together:  # in which BRPOP does not wait
        together.brpop([RIGHTS_KEY], 1)
        together.publish(RIGHTS_KEY, "")
        together.execute()
    with client.pubsub() as channel:
        channel.psubscribe(RIGHTS_KEY)
        channel.get_message(timeout=ANSWER_SECONDS)


def server_mode(client: Redis) -> str:
    """Return ``standalone``, ``cluster`` or ``sentinel``."""
    try:
        about = client.info("server")
    except ResponseError:  # not allowed, or not known to this server
        return "standalone"
    return str(about.get("redis_mode") or about.get("server_mode") or "standalone")  # or Valkey's


def may_pass(error: Exception) -> bool:
    """Whether the next attempt may succeed: the server is starting, or a failover is under way."""
    if isinstance(error, AuthenticationError):
        return False
    if any(isinstance(cause, ssl.SSLError) for cause in chain(error)):
        return False
    return isinstance(error, RedisConnectionError | ReadOnlyError)


def may_come(address: RedisAddress, error: Exception) -> bool:
    """Whether a Redis may be usable later, with nothing to correct here."""
    if address.tls is not None and any(isinstance(e, FileNotFoundError) for e in chain(error)):
        return False
    if isinstance(error, ResponseError) and str(error).startswith(FOR_A_WHILE):
        return True
    passing = RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError
    return isinstance(error, passing) and not is_refusal(error)


def is_refusal(error: Exception) -> bool:
    """Whether Redis answers and refuses this client: its password, its rights or its TLS."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    # A server that ends, or a proxy without a server, ends handshakes too.
    ended = ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    return any(isinstance(e, ssl.SSLError) and not isinstance(e, ended) for e in chain(error))


def explain(address: RedisAddress, error: Exception) -> str:
    """Return what is wrong and what to do."""
    there = f"The Redis at {address}"
    match error:
        case AuthenticationError():
            return (
                f"{there} needs a password, or refuses this user and password: write "
                f"{address.spelling('USER:PASSWORD')}, or :PASSWORD alone for the default user."
            )
        case NoPermissionError():
            return (
                f"{there} does not give this user the rights that the fleet needs ({error}): all "
                f"commands on the keys {KEY_PREFIX}* and on all channels (ACL SETUSER … +@all "
                f"~{KEY_PREFIX}* &*)."
            )
        case ReadOnlyError():
            return f"{there} is a replica, which cannot be written: name its primary."
        case ResponseError() if "DB index" in str(error):
            return f"{there} has no database {address.db}: its setting databases is smaller."
        case ResponseError():
            return f"{there} refuses a command that the fleet needs ({error})."
    return f"No Redis answers at {address} ({reason(address, error)}).\n{START_ONE}"


def reason(address: RedisAddress, error: Exception) -> str:
    """Return why there is no connection."""
    causes = list(chain(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted: {cause.verify_message}. Name the file of the "
                "authority that signed it: ?ssl_ca_certs=/path/ca.pem"
            )
    if address.tls is not None and any(isinstance(cause, FileNotFoundError) for cause in causes):
        return "a file that ssl_ca_certs, ssl_certfile or ssl_keyfile names is not there"
    text = str(error).rstrip(".")
    if address.tls is not None and isinstance(error, RedisTimeoutError | InvalidResponse):
        return f"{text}; if this port is without TLS, write redis://"
    was_connected = " connecting to " not in text and not isinstance(error, RedisTimeoutError)
    if address.tls is None and address.socket is None and was_connected:
        return f"{text}; if this port is with TLS, write rediss://"
    return text
