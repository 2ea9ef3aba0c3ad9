"""Running commands in forked processes, without the time for imports.

A command spends one to eight seconds on its imports, and the tests run hundreds of them. Here one
server per set of modules (and per pytest process) imports them once. Each run is a fork of the
server with its own arguments, environment, folder and files, and ends like any Python process.
"""

import atexit
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

from common.local.processes import end_with_parent, stop
from tests.support.forks import fork_instead_of_starting, read_early, take_over

ROOT = Path(__file__).parents[2]

COMMANDS = ("producer.cli", "workers.cli")

#: Modules that need nothing of a worker.
LIGHT = ("producer.cli", "tests.support.quick_keeper")

#: Modules that a server imports before the first run.
PRELOADED = {
    "producer": ["producer.cli.app"],
    "worker": [
        *("producer.cli.app", "producer.local.run"),
        *("workers.cli.app", "workers.process.worker", "workers.validation.run"),
    ],
}


class Process:
    """A command that runs in a fork of a server, with what tests use of ``subprocess.Popen``."""

    def __init__(self, args: list[str], connection: socket.socket) -> None:
        self.args = args
        self.pid = int(connection.recv(100))
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, or the signal's number as a negative one.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int(self._connection.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    files: Sequence[int],
    cwd: Path | None = None,
    in_session: bool = False,
) -> Process:
    """Start a command.

    Args:
        files: its standard input, output and error.
        in_session: whether it is to have a session of its own.
    """
    request = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "cwd": os.path.abspath(cwd or "."),
        "in_session": in_session,
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(server_of(set_of(module, arguments), read_early(environment)))
    socket.send_fds(connection, [json.dumps(request).encode()], files)
    return Process([module, *arguments], connection)


def set_of(module: str, arguments: Sequence[str]) -> str:
    """Return the modules that a command needs: a producer that starts workers has theirs, too."""
    is_light = module in LIGHT and "--local" not in arguments
    return "producer" if is_light else "worker"


def run(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path | None,
    seconds: float,
    stdin: bytes | None = None,
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command and capture its output, as ``subprocess.run`` does.

    Args:
        stdin: what it is given in a pipe, which must hold it all.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given = piped(stdin) if stdin else os.open(os.devnull, os.O_RDONLY)
        try:
            files = [given, output.fileno(), errors.fileno()]
            process = start(module, arguments, environment, files=files, cwd=cwd)
        finally:
            os.close(given)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(process.args, code, content(output), content(errors))


#: Bytes that a pipe holds before who writes into it has to wait.
PIPE_BYTES = 65_536


def piped(text: bytes) -> int:
    """Return the end of a pipe from which a text can be read."""
    assert len(text) <= PIPE_BYTES
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    return reader


def content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@cache
def server_of(modules: str, environment: frozenset[tuple[str, str]]) -> str:
    """Start a server, which ends with this process; return its socket's path."""
    folder = tempfile.mkdtemp(prefix="warm-")
    path = str(Path(folder, "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", modules],
            stdin=listener,
            env=dict(environment),
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    atexit.register(shutil.rmtree, folder)
    atexit.register(stop, server, 5)
    return path


# --- the server -----------------------------------------------------------------------------------


def serve(listener: socket.socket) -> str:
    """Fork for every connection; return, only in the forks, the command that is to run."""
    running: dict[int, socket.socket] = {}
    ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([listener, ended], [], [])
        if ended in ready:
            os.read(ended, 1000)
            report_ends(running)
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        message, files, _, _ = socket.recv_fds(connection, 2**20, 3)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return become(json.loads(message), files)
        for file in files:
            os.close(file)
        connection.send(str(pid).encode())
        running[pid] = connection


def report_ends(running: dict[int, socket.socket]) -> None:
    """Send the exit code of every process that ended to who waits for it."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as connection, suppress(OSError):  # no one waits any more
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: dict[str, object], files: Sequence[int]) -> str:
    """Make this process, which was forked, the one that was asked for; return its command."""
    end_with_parent()
    if request["in_session"]:
        os.setsid()
    take_over(files, request["environment"])  # type: ignore[arg-type]
    os.chdir(str(request["cwd"]))
    sys.argv[1:] = request["arguments"]  # type: ignore[call-overload]
    return str(request["module"])


if __name__ == "__main__":
    for name in [*COMMANDS, *PRELOADED[sys.argv[1]]]:
        import_module(name)
    if sys.argv[1] == "worker":
        fork_instead_of_starting()
    gc.freeze()  # keeps the collector from touching, and so copying, imported objects
    with socket.socket(fileno=os.dup(0)) as listener:
        command = serve(listener)
    runpy.run_module(command, run_name="__main__", alter_sys=True)
