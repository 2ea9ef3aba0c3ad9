"""The entries of workers: what they tell, to this version and to others."""

import pytest
from pydantic import BaseModel

from common.ledger.workers import (
    WORKER_PREFIX,
    CurrentBatch,
    WorkerInfo,
    running_tokens,
)
from common.rungs import Rung
from tests.support.worlds import WORKER


def current(batch: int, tokens: int, rung: Rung = Rung.FP16, job: str = "j") -> CurrentBatch:
    return CurrentBatch(job=job, batch=batch, rung=rung, tokens=tokens, seconds=2.5)


def computing(*batches: CurrentBatch) -> WorkerInfo:
    return WORKER.model_copy(update={"current": batches, "busy": 0.5, "stage": None})


def test_running_tokens_are_those_of_leased_batches_of_the_job_each_counted_once():
    workers = [
        computing(current(0, 5), current(1, 7), current(1, 100, Rung.FP32)),
        computing(current(1, 9), current(2, 1000), current(0, 10_000, job="other")),
    ]
    assert running_tokens(workers, "j", {(0, Rung.FP16), (1, Rung.FP16)}) == 5 + 9
    assert running_tokens(workers, "j", set()) == 0


def test_an_entry_is_read_as_it_was_announced(ledger):
    worker = computing(current(3, 7))
    ledger.workers.announce(worker)
    assert ledger.workers.all() == [worker]


def test_the_version_before_reads_the_entry_of_this_one_and_this_one_its(redis):
    class Before(BaseModel):
        name: str
        model: str
        weights: str | None
        device: str
        precision: Rung
        queues: tuple[str, ...]

    text = computing(current(3, 7)).model_dump_json()
    before = Before.model_validate_json(text)
    assert WorkerInfo.model_validate_json(before.model_dump_json()) == WORKER


def test_a_worker_that_announces_nothing_is_silent(ledger, redis):
    ledger.workers.announce(WORKER)
    assert ledger.workers.silence([WORKER.name, "gone"])[WORKER.name] == pytest.approx(0, abs=5)
    redis.expire(f"{WORKER_PREFIX}{WORKER.name}", 6)
    assert ledger.workers.silence([WORKER.name]) == {WORKER.name: pytest.approx(24, abs=5)}
    assert ledger.workers.silence(["gone"]) == ledger.workers.silence([]) == {}
