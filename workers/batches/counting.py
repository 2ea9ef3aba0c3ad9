"""The counts of batches and rows for a worker's metrics, and of its requests to others."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError, RedisError

from common.rungs import Rung
from common.store import ObjectExistsError, ObjectNotFoundError, StoreError
from common.wire.messages import Batch, BatchResult
from workers.batches.outcome import BatchOutcome, OutcomeKind
from workers.batches.retry_policy import RequeueError
from workers.runtime import metrics

#: The outcomes of rows.
EMBEDDED, UNSTABLE, POISONED = "embedded", "unstable", "poisoned"

Run = Callable[[Batch], BatchOutcome]
T = TypeVar("T")


def counted(run: Run, rungs: Iterable[Rung]) -> Run:
    """Return a function that runs batches as ``run``, and counts what becomes of them.

    Args:
        rungs: that are served; their counters begin at 0, so that the first increase is seen.
    """
    for rung in rungs:
        metrics.add("tokens_total", 0, rung)
        for kind in OutcomeKind:
            metrics.add("batches_total", 0, rung, kind)
        for outcome in (EMBEDDED, UNSTABLE, POISONED):
            metrics.add("rows_total", 0, rung, outcome)

    def run_counted(batch: Batch) -> BatchOutcome:
        try:
            outcome = run(batch)
        except RequeueError:
            metrics.add("batches_total", 1, batch.rung, OutcomeKind.REQUEUED)
            raise
        metrics.add("batches_total", 1, batch.rung, outcome.kind)
        if outcome.result is not None:
            count_rows(outcome.result)
        return outcome

    return run_counted


def count_rows(result: BatchResult) -> None:
    """Count the tokens and the rows of a batch that has a result."""
    metrics.add("tokens_total", result.tokens, result.rung)
    metrics.add("rows_total", result.records, result.rung, EMBEDDED)
    metrics.add("rows_total", len(result.unstable), result.rung, UNSTABLE)
    metrics.add("rows_total", len(result.poisoned), result.rung, POISONED)


def timed(operation: Literal["read", "write"], request: Callable[[], T]) -> Callable[[], T]:
    """Return a function that times a request to the store, and counts it if the store fails."""

    def request_timed() -> T:
        with metrics.request("store", operation, is_failure=is_store_failure):
            return request()

    return request_timed


def is_store_failure(error: Exception) -> bool:
    """Return whether an error is the store's fault, and no answer about an object."""
    answers = ObjectNotFoundError, ObjectExistsError
    return isinstance(error, StoreError) and not isinstance(error, answers)


def time_requests(redis: Redis) -> None:
    """Time all requests that a client sends from now on, and count those that fail.

    A request is a command, or the commands of a pipeline.
    """

    def timed(send: Callable[..., Any]) -> Callable[..., Any]:
        def send_timed(*words: Any, **options: Any) -> Any:
            with metrics.request("redis", is_failure=is_redis_failure):
                return send(*words, **options)

        return send_timed

    begin: Callable[..., Pipeline] = redis.pipeline

    def pipeline(*options: Any, **named: Any) -> Pipeline:
        together = begin(*options, **named)
        together.execute = timed(together.execute)  # type: ignore[method-assign]
        return together

    redis.execute_command = timed(redis.execute_command)  # type: ignore[method-assign]
    redis.pipeline = pipeline  # type: ignore[method-assign]


def is_redis_failure(error: Exception) -> bool:
    """Return whether Redis failed; that it does not know a script yet is no failure."""
    return isinstance(error, RedisError) and not isinstance(error, NoScriptError)
