"""Running commands in forked processes, without the time for imports.

A command spends one to eight seconds on its imports, and the tests run hundreds of them. Here one
server per command (and per pytest process) imports it once. Each run is a fork of the server with
its own arguments, environment, folder and output, and ends like any Python process.
"""

import atexit
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

from common.local.processes import end_with_parent, stop

ROOT = Path(__file__).parents[2]

#: Modules that the server of a command imports before the first run; the first has `main`.
PRELOADED = {
    "producer.cli": ["producer.cli", "producer.cli.app"],
    "workers.cli": ["workers.cli", "workers.cli.app", "workers.validation.run"],
}

#: Prefixes of variables that are read when a command runs, not when libraries are imported.
READ_LATE = ("VIRNUCPRO_", "AWS_", "XDG_CACHE_HOME", "PYTEST_")


def run(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path | None,
    seconds: float,
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command and capture its output, as ``subprocess.run`` does.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    request = {
        "arguments": list(arguments),
        "environment": dict(environment),
        "cwd": os.path.abspath(cwd or "."),
    }
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
    ):
        connection.connect(server_of(module, read_early(environment)))
        message = json.dumps(request).encode()
        socket.send_fds(connection, [message], [output.fileno(), errors.fileno()])
        pid = int(connection.recv(100))
        connection.settimeout(seconds)
        try:
            code = int(connection.recv(100))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([module, *arguments], seconds) from None
        return subprocess.CompletedProcess(
            [module, *arguments], code, content(output), content(errors)
        )


def content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def read_early(environment: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return the variables that the interpreter or a library may read before a command runs."""
    return frozenset(item for item in environment.items() if not item[0].startswith(READ_LATE))


@cache
def server_of(module: str, environment: frozenset[tuple[str, str]]) -> str:
    """Start the server of a command, which ends with this process; return its socket's path."""
    folder = tempfile.mkdtemp(prefix="warm-")
    path = str(Path(folder, "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", module],
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


def serve(listener: socket.socket) -> None:
    """Fork for every connection; return only in the processes that will run the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no one waits for the processes that answer
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
            return
        connection.close()


def answer(connection: socket.socket) -> None:
    """Fork again: return in the process that runs the command; report its end in this one."""
    message, files, _, _ = socket.recv_fds(connection, 2**20, 2)
    if pid := os.fork():
        for file in files:
            os.close(file)
        connection.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    request = json.loads(message)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate([null, *files]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]


if __name__ == "__main__":
    command = sys.argv[1]
    for name in PRELOADED[command]:
        import_module(name)
    gc.freeze()  # keeps the collector from touching, and so copying, imported objects
    with socket.socket(fileno=os.dup(0)) as listener:
        serve(listener)
    import_module(command).main()
