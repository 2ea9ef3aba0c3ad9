"""Processes that read for the one that writes, whose threads share the time of one CPU in Python.

python -m producer.output.helper DESCRIPTOR
"""

import mmap
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from queue import SimpleQueue
from typing import Any, NamedTuple

from common.cpus import usable_cpus
from common.embeddings.arrays import Embeddings
from common.job.manifest import Manifest
from common.local.processes import start_dependent, stop
from common.store import Store, open_store
from producer.output.contents import Block
from producer.output.job_shards import SMALL_AHEAD, merged, shards_ahead
from producer.output.layouts.at_place import write_at
from producer.output.named import named_rows

#: ``-P``: a folder with the name of one of our packages where the user is must not come first.
COMMAND = [sys.executable, "-P", "-m", "producer.output.helper"]

#: CPUs and rows from which on helpers are of use: with fewer, their start takes longer than they
#: save.
SEVERAL_CPUS, MANY_ROWS = 4, 200_000

#: The most helpers: the process that writes has no time for more.
MOST_HELPERS = 4

#: Bytes that the place of an array is a multiple of.
ALIGNMENT = 64

#: Seconds that one has to end.
GRACE_SECONDS = 5


class Setup(NamedTuple):
    """What a helper has to know of a job."""

    store: str  # its URL
    manifest: Manifest
    attributes: dict[str, Any]  # of its shards


class Shards(NamedTuple):
    """The question for the rows of a batch; see ``merged``."""

    manifest: Manifest | None  # if some vectors are not wanted
    batch: int
    keys: list[str]
    with_texts: bool


class Helper:
    """One process, which answers one question after another."""

    def __init__(self, setup: Setup) -> None:
        self._is_ready = False
        self._connection, theirs = Pipe()
        with theirs:
            folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # noqa: PTH109
            environment = os.environ | {"PYTHONPATH": folders}
            command = [*COMMAND, str(theirs.fileno())]
            self._process = start_dependent(command, env=environment, files=[theirs.fileno()])
        with suppress(OSError):  # it has ended
            self._connection.send(setup)

    def ask(self, question: int | Shards) -> Any:
        """Return the answer; None if there is none, or as long as the process is not ready."""
        with suppress(EOFError, OSError):
            if not self._is_ready and self._connection.poll():
                self._connection.recv()
                self._is_ready = True
            if self._is_ready:
                self._connection.send(question)
                return receive(self._connection)
        return None

    def end(self) -> None:
        """End the process."""
        stop(self._process, GRACE_SECONDS)


class Helpers:
    """The helpers of an output. What they cannot tell, its own process has to find out."""

    def __init__(self, setup: Setup, count: int) -> None:
        self._helpers = [Helper(setup) for _ in range(count)]
        self._idle: SimpleQueue[Helper] = SimpleQueue()
        for helper in self._helpers:
            self._idle.put(helper)

    def named(self, index: int) -> Embeddings | None:
        """Return what ``named_rows`` does."""
        found: Embeddings | None = self._ask(index)
        return found

    def merged(self, question: Shards) -> Block | None:
        """Return what ``merged`` does."""
        found: Block | None = self._ask(question)
        return found

    def _ask(self, question: int | Shards) -> Any:
        helper = self._idle.get()
        try:
            return helper.ask(question)
        finally:
            self._idle.put(helper)

    def end(self) -> None:
        """End their processes."""
        for helper in self._helpers:
            helper.end()


def helpers_for(store: Store, manifest: Manifest, attributes: dict[str, Any]) -> Helpers | None:
    """Return helpers for the output of a job, if they are of use."""
    cpus = int(usable_cpus())
    if cpus < SEVERAL_CPUS or manifest.report.records < MANY_ROWS:
        return None
    if shards_ahead(manifest, int(attributes["dim"])) < SMALL_AHEAD:
        return None  # of large shards nearly all is bytes, which threads move at the same time
    if not hasattr(os, "memfd_create"):  # only Linux has it
        return None
    setup = Setup(store.url, manifest, attributes)
    return Helpers(setup, max(1, min(MOST_HELPERS, cpus // 2)))


def send(connection: Connection, value: object) -> None:
    """Send a value, whose arrays the other process finds in memory that both have."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    memory = os.memfd_create("rows")
    try:
        places: list[tuple[int, int]] = []
        for buffer in buffers:
            start = -(-places[-1][1] // ALIGNMENT) * ALIGNMENT if places else 0
            places.append((start, write_at(memory, buffer.raw(), start)))
        connection.send((data, places))
        send_handle(connection, memory, None)
    finally:
        os.close(memory)


def receive(connection: Connection) -> Any:
    """Return a value that was sent."""
    data, places = connection.recv()
    memory = recv_handle(connection)
    try:
        size = places[-1][1] if places else 0
        whole = memoryview(mmap.mmap(memory, size) if size else b"")
    finally:
        os.close(memory)
    buffers = [whole[start:end] for start, end in places]
    return pickle.loads(data, buffers=buffers)  # noqa: S301 (this program's own)


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):  # then the other process has ended
        serve(connection)


def serve(connection: Connection) -> None:
    """Say that this process is ready; then answer one question after another.

    Raises:
        EOFError: the connection is closed.
    """
    setup: Setup = connection.recv()
    store = open_store(setup.store)
    connection.send(None)
    while True:
        send(connection, answer_of(action_of(store, setup, connection.recv())))


def action_of(store: Store, setup: Setup, question: int | Shards) -> Callable[[], Any]:
    """Return what a question asks for."""
    if isinstance(question, int):
        return partial(named_rows, store, setup.manifest, question)
    manifest, batch, keys, with_texts = question
    of_shards = setup.attributes
    return partial(merged, store, manifest or setup.manifest, batch, keys, of_shards, with_texts)


def answer_of(action: Callable[[], Any]) -> Any:
    """Return what an action returns; None for an error, of which the other process finds out."""
    with suppress(Exception):
        return action()
    return None


if __name__ == "__main__":
    main()
