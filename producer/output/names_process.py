"""A process that reads what the rows of batches are called, for the one that writes them.

    python -m producer.output.names_process DESCRIPTOR

It is a third of what Python has to do for each row, and threads share the time of one CPU for that.
"""

import os
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock

from common.cpus import usable_cpus
from common.embeddings.arrays import Embeddings
from common.job.manifest import Manifest
from common.local.processes import start_dependent, stop
from common.store import Store, open_store
from producer.output.named import named_rows

#: ``-P``: a folder with the name of one of our packages where the user is must not come first.
COMMAND = [sys.executable, "-P", "-m", "producer.output.names_process"]

#: CPUs and rows from which on it is of use: with fewer, its start takes longer than it saves.
SEVERAL_CPUS, MANY_ROWS = 4, 200_000

#: Seconds that it has to end.
GRACE_SECONDS = 5


class NamesProcess:
    """Gives what another process has read; None as long as it is not ready, or if it cannot."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._lock = Lock()  # several threads ask
        self._is_ready = False
        self._connection, theirs = Pipe()
        with theirs:
            folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # noqa: PTH109
            environment = os.environ | {"PYTHONPATH": folders}
            command = [*COMMAND, str(theirs.fileno())]
            self._process = start_dependent(command, env=environment, files=[theirs.fileno()])
        with suppress(OSError):  # it has ended
            self._connection.send((store.url, manifest))

    def named(self, index: int) -> Embeddings | None:
        """Return what ``named_rows`` does, unless the process cannot tell."""
        with self._lock, suppress(EOFError, OSError):
            if self._is_ready or self._connection.poll():
                if not self._is_ready:
                    self._connection.recv()
                    self._is_ready = True
                self._connection.send(index)
                found: Embeddings | None = self._connection.recv()
                return found
        return None

    def end(self) -> None:
        """End the process."""
        stop(self._process, GRACE_SECONDS)
        with self._lock:
            self._connection.close()


def process_for(store: Store, manifest: Manifest) -> NamesProcess | None:
    """Return a process for a job, if it is of use."""
    if usable_cpus() < SEVERAL_CPUS or manifest.report.records < MANY_ROWS:
        return None
    return NamesProcess(store, manifest)


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):  # then the other process has ended
        serve(connection)


def serve(connection: Connection) -> None:
    """Say that this process is ready; then answer with the rows of one batch after another.

    Raises:
        EOFError: the connection is closed.
    """
    url, manifest = connection.recv()
    store = open_store(url)
    connection.send(None)
    while True:
        connection.send(answer(store, manifest, connection.recv()))


def answer(store: Store, manifest: Manifest, index: int) -> Embeddings | None:
    """Return the rows of a batch; None if they cannot be read: the other process finds out why."""
    with suppress(Exception):
        return named_rows(store, manifest, index)
    return None


if __name__ == "__main__":
    main()
