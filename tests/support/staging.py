"""Staging the same input in one process and in several, to compare what comes of it."""

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.errors import VirnucproError
from common.job.manifest import Manifest
from common.model_specs import MODELS
from common.store import Store
from producer.input.batches import Budget
from producer.input.pieces import Piece
from producer.submission.piece_work import Done, Order, Parsed, PieceWork, Setup, Whole
from producer.submission.request import Request
from producer.submission.staging import stage
from tests.support.stores import folder_store

CREATED = datetime(2026, 1, 2, tzinfo=UTC)

#: What comes of an input: its manifest without names that are random, and all objects; or an error.
Outcome = tuple[Any, ...]


def outcome(root: Path, request: Request, budget: Budget, processes: int, model: str) -> Outcome:
    """Stage an input into a store of its own."""
    store = folder_store(root)
    try:
        manifest = staged(store, request, budget, processes, model)
    except VirnucproError as error:
        assert not list(store.keys("")), "an error leaves nothing behind"
        return type(error), str(error), error.path, error.line, error.record
    objects = {key: store.get(key) for key in store.keys("") if not key.endswith("manifest.json")}
    return manifest, objects


def staged(
    store: Store, request: Request, budget: Budget, processes: int, model: str, **options: Any
) -> Manifest:
    return stage(
        *(store, request, "0123456789abcdef"),
        budget=budget,
        spec=MODELS[model],
        created=lambda: CREATED,
        processes=processes,
        **options,
    )


class WithoutProcess:
    """What a process would do, in this one; messages are pickled as usual."""

    def __init__(self, setup: Setup, keep: Callable[[], None]) -> None:
        self.work = PieceWork(pickle.loads(pickle.dumps(setup)), keep)
        self.pieces = 0

    def parse(self, number: int, piece: Piece) -> "Future[Parsed]":
        return answered(self.work.parse, number, piece)

    def write(self, order: Order) -> "Future[list[Done]]":
        return answered(self.work.write, order)

    def write_whole(self, batch: Whole) -> "Future[tuple[int, int]]":
        return answered(self.work.write_whole, batch)

    def drop(self, piece: int) -> None:
        self.work.drop(piece)


def answered(action: Callable[..., Any], *arguments: object) -> "Future[Any]":
    future: Future[Any] = Future()
    try:
        answer = action(*pickle.loads(pickle.dumps(arguments)))
        future.set_result(pickle.loads(pickle.dumps(answer)))
    except Exception as error:
        future.set_exception(error)
    return future


class PoolWithoutProcesses:
    """A pool of such; the pieces go to them in turns."""

    def __init__(self, setup: Setup, processes: int, keep: Callable[[], None]) -> None:
        self.workers = [WithoutProcess(setup, keep) for _ in range(processes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __len__(self) -> int:
        return len(self.workers)

    def least_busy(self) -> WithoutProcess:
        self.workers.append(self.workers.pop(0))
        return self.workers[-1]
