"""A process that stages pieces of an input for the one that started it.

    python -m producer.submission.staging_process DESCRIPTOR

It answers one message after another on a connection, and ends when that is closed.
"""

import gc
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from producer.submission.piece_work import Drop, Failed, Keep, Order, Parse, PieceWork, Whole


def main() -> None:
    gc.disable()  # there are very many records, without any cycles
    connection = Connection(int(sys.argv[1]))
    # Then the other process has ended, or needs this one no more.
    with suppress(EOFError, ConnectionError):
        serve(connection)


def serve(connection: Connection) -> None:
    """Answer messages, the first of which is a setup, until the connection is closed.

    Raises:
        EOFError: it is.
    """

    def keep() -> None:
        connection.send(Keep())
        connection.recv()

    work = answer_of(partial(PieceWork, connection.recv(), keep))
    connection.send(work if isinstance(work, Failed) else None)
    while True:
        connection.send(answer_of(action_of(work, connection.recv())))


def action_of(work: PieceWork, message: Parse | Order | Whole | Drop) -> Callable[[], Any]:
    """Return what a message asks for."""
    match message:
        case Parse():
            return partial(work.parse, message.number, message.piece)
        case Order():
            return partial(work.write, message)
        case Whole():
            return partial(work.write_whole, message)
        case Drop():
            return partial(work.drop, message.piece)


def answer_of(action: Callable[[], Any]) -> Any:
    """Return what an action returns, or raises."""
    try:
        return action()
    except EOFError:
        raise  # of the connection
    except Exception as error:
        return Failed(portable(error))


def portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process: itself, or else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (this process's own)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main()
