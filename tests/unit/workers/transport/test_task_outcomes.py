"""What Celery's events say of tasks, as Flower hears them from a worker; and that none is lost."""

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from common.model_source import ModelSource
from common.wire.celery_app import make_celery, publish
from common.wire.dead_letters import DeadLetters
from common.wire.queues import Queues, queue_name
from tests.support.jobs import TOKENS_PER_RECORD, manifest_of
from tests.support.processes import START_SECONDS, clean_environment, wait_until
from workers.transport.task_outcomes import SHOWN_CHARACTERS

OUTCOMES = ["done", "unstable", "failed", "skipped", "requeued", "broken"]
MANIFEST = manifest_of([312] * len(OUTCOMES))
MODEL = ModelSource.parse(MANIFEST.model)
QUEUE = queue_name(MODEL, MANIFEST.rung, MANIFEST.rung)

Heard = dict[tuple[str, str], dict[str, Any]]


@contextmanager
def listening(broker_url: str) -> Iterator[Heard]:
    """Yield the latest event of each type about each task; under ``""`` the workers'."""
    heard: Heard = {}

    def note(event: dict[str, Any]) -> None:
        heard[event.get("uuid", ""), event["type"]] = event

    def listen() -> None:
        with app.connection() as connection, suppress(Exception):  # Redis ends before it does
            app.events.Receiver(connection, handlers={"*": note}).capture(limit=None, timeout=60)

    app = make_celery(broker_url, [])
    threading.Thread(target=listen, daemon=True).start()
    yield heard


def events_of(heard: Heard, index: int) -> dict[str, dict[str, Any]]:
    """Return the events about a batch, by type."""
    [task] = {
        task
        for (task, kind), event in heard.items()
        if kind == "task-received" and ast.literal_eval(event["kwargs"])["batch"] == index
    }
    return {kind: event for (about, kind), event in heard.items() if about == task}


def test_every_outcome_is_told_and_a_failure_is_acknowledged(ledger, redis_url, tmp_path):
    words = [sys.executable, "-m", "tests.support.outcome_worker", redis_url, QUEUE, *OUTCOMES]
    log = tmp_path / "worker.log"
    with listening(redis_url) as heard, log.open("wb") as output:
        worker = subprocess.Popen(words, env=clean_environment(), stdout=output, stderr=output)
        try:
            wait_until(lambda: ("", "worker-online") in heard, START_SECONDS)
            publish(make_celery(redis_url, []), MODEL, map(MANIFEST.batch, range(len(OUTCOMES))))
            ends = ("task-succeeded", "task-failed")
            wait_until(lambda: sum(kind in ends for _, kind in heard) == len(OUTCOMES), 30)
        finally:
            worker.terminate()
            worker.wait(30)
    told = dict(zip(OUTCOMES, (events_of(heard, n) for n in range(len(OUTCOMES))), strict=True))
    size = f"'rows': 312, 'tokens': {312 * TOKENS_PER_RECORD}"
    assert told["done"]["task-received"]["kwargs"] == (
        f"{{'job': '{MANIFEST.job}', 'batch': 0, 'rung': 'fp16', {size}}}"
    )
    results = {
        outcome: told[outcome]["task-succeeded"]["result"]
        for outcome in ("done", "unstable", "skipped", "requeued")
    }
    assert results == {
        "done": "done 312 rows",
        "unstable": "done 309 rows, 3 rows on to selective_fp32",
        "skipped": "skipped: lease held by another",
        "requeued": "done 312 rows",
    }
    rejected = told["requeued"]["task-rejected"]
    assert rejected["result"] == "requeued: attempt 1: no store at s3://***@bucket"
    failure = told["failed"]["task-failed"]
    assert failure["exception"].startswith(r"failed: ValueError: no use\nof s3://***@bucket xxx")
    assert len(failure["exception"]) == SHOWN_CHARACTERS
    assert failure["traceback"] is None
    assert "in run" in told["broken"]["task-failed"]["traceback"]
    assert "task-succeeded" not in told["failed"]
    # Nothing is left, and nothing came back: a failed batch would fail again and again.
    queues = Queues(ledger.redis)
    assert (queues.length(QUEUE), queues.in_flight()) == (0, [])
    assert DeadLetters(ledger.redis).count() == 0
    lines = log.read_text()
    assert "s3cret" not in lines
    assert lines.count("ERROR") == 1  # of the program's own error alone
    assert "BatchFailedError" not in lines
