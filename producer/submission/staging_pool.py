"""The processes that stage pieces of an input, and the one that gives them their work."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from types import TracebackType
from typing import Any, Self

from common.errors import ProcessEndedError
from common.local.processes import start_dependent, stop, wait_or_kill
from producer.input.pieces import Piece
from producer.submission.piece_work import (
    Done,
    Drop,
    Failed,
    Keep,
    Order,
    Parse,
    Parsed,
    Setup,
    Whole,
)

#: ``-P``: a folder with the name of one of our packages where the user is must not come first.
COMMAND = [sys.executable, "-P", "-m", "producer.submission.staging_process"]

#: Environment of the processes. By glibc's settings, memory of one piece is not given back to the
#: system before the next, which would take a sixth of the time. NumPy starts no threads for linear
#: algebra, which would take a quarter of the time of the start.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}

#: Seconds that a process has to end.
GRACE_SECONDS = 5


class StagingProcess:
    """One process, which does one thing after another.

    Args:
        keep: called if it asks whether it may go on writing; raises if it must not.
    """

    def __init__(self, setup: Setup, keep: Callable[[], None]) -> None:
        self._keep = keep
        self._refusal: BaseException | None = None  # what ``keep`` raised
        #: Pieces that it has, or will read.
        self.pieces = 0
        self._connection, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            folders = os.pathsep.join(module_folders())
            environment = ENVIRONMENT | os.environ | {"PYTHONPATH": folders}
            command = [*COMMAND, str(descriptor)]
            self._process = start_dependent(command, env=environment, files=[descriptor])
        # A thread of its own for each process: one that sends while the other does not read yet
        # waits, and nobody else.
        self._calls = ThreadPoolExecutor(1)
        self._ready = self._calls.submit(self._call, setup)

    def parse(self, number: int, piece: Piece) -> "Future[Parsed]":
        """Have it read a piece; see ``PieceWork``."""
        self.pieces += 1
        return self._calls.submit(self._parsed, Parse(number, piece))

    def _parsed(self, message: Parse) -> Any:
        self._ready.result()
        return self._call(message)

    def write(self, order: Order) -> "Future[list[Done]]":
        """Have it write batches of a piece."""
        future = self._calls.submit(self._call, order)
        future.add_done_callback(self._without_piece)
        return future

    def write_whole(self, batch: Whole) -> "Future[tuple[int, int]]":
        """Have it write a batch that pieces share; the future has the checksums."""
        return self._calls.submit(self._call, batch)

    def drop(self, piece: int) -> None:
        """Have it forget a piece."""
        self._calls.submit(self._call, Drop(piece)).add_done_callback(self._without_piece)

    def _without_piece(self, _future: "Future[Any]") -> None:
        self.pieces -= 1

    def let_end(self) -> None:
        """Let it end; it has nothing to do any more."""
        self._calls.shutdown()
        self._connection.close()

    def wait(self) -> None:
        """Wait for its end."""
        wait_or_kill(self._process, GRACE_SECONDS)

    def stop(self) -> None:
        """End it in the middle of what it does."""
        stop(self._process, GRACE_SECONDS)
        self._calls.shutdown(cancel_futures=True)
        self._connection.close()

    def _call(self, message: object) -> Any:
        """Return the answer to a message.

        Raises:
            ProcessEndedError: the process has ended.
            Exception: what it raised.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            self._connection.send(message)
            while isinstance(answer := self._connection.recv(), Keep):
                self._ask_keep()
                self._connection.send(None)
        except (EOFError, ConnectionError) as error:
            code = wait_or_kill(self._process, GRACE_SECONDS)
            raise ProcessEndedError(
                f"A process that staged the input was ended ({how(code)}). Nothing was queued. "
                "If the memory is full, free some; then run the command again."
            ) from error
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def _ask_keep(self) -> None:
        """Check that batches still may be written.

        If not, the process waits for its answer: it would take another message for that.
        """
        try:
            self._keep()
        except BaseException as error:
            self._refusal = error
            raise


def how(code: int) -> str:
    """Return how a process ended, given its exit code."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def module_folders() -> list[str]:
    """Return where this process finds modules."""
    return [folder or os.getcwd() for folder in sys.path]  # noqa: PTH109 (a text, as the others)


class StagingPool:
    """Processes that share the pieces of an input. On an error they are stopped at once."""

    def __init__(self, setup: Setup, processes: int, keep: Callable[[], None]) -> None:
        self._processes: list[StagingProcess] = []
        try:
            for _ in range(processes):
                self._processes.append(StagingProcess(setup, keep))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stop()
            return
        for process in self._processes:
            process.let_end()
        for process in self._processes:
            process.wait()

    def __len__(self) -> int:
        return len(self._processes)

    def _stop(self) -> None:
        for process in self._processes:
            process.stop()

    def least_busy(self) -> StagingProcess:
        """Return the process that has the fewest pieces."""
        return min(self._processes, key=lambda process: process.pieces)
