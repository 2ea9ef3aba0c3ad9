"""Rows that overflow, cancelled jobs, wrong clocks, and events that no client reads."""

import random
import re
import socket
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

from common.rungs import PRECISION_CODES, Rung
from common.wire.queues import Queues
from tests.faults.checks import (
    assert_nothing_was_lost,
    fetched,
    keeper,
    progress_of,
    submit,
    wait_for_batches,
)
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.overflow import RARE, add_too_much_at_once
from tests.support.processes import running_worker, wait_until

SKEWED_CLOCK = Path(__file__).parents[1] / "support" / "skewed_clock"


def test_rows_that_are_not_finite_go_to_the_next_queue_at_once_and_count_once(
    fleet, redis, tmp_path
):
    model = random_fair_esm(TINY)
    add_too_much_at_once(model)
    path = save_fair_esm(model, tmp_path / "overflows.pt")
    draw = random.Random(3)
    bad = {7, 8, 30, 59}
    fasta = tmp_path / "p.fasta"
    fasta.write_text(
        "".join(
            f">p{row}\nMK{RARE if row in bad else ''}{''.join(draw.choices('LAGVSE', k=20))}\n"
            for row in range(60)
        )
    )
    with redis.client as client, client.monitor() as monitor:
        job = submit(fleet, path, fasta, tokens=100)
        with fleet.running_workers(path, tmp_path, "--precision=fp16"):
            wait_until(lambda: progress_of(fleet, job).finished, 60)
        done = progress_of(fleet, job)
        queue = done.queues[Rung.SELECTIVE_FP32]
        pushed = []
        while len(pushed) < done.batches_at(Rung.SELECTIVE_FP32):
            command = monitor.next_command()["command"]
            if command.startswith("LPUSH") and f"{queue} " in command:
                pushed.append(command.replace("\\", ""))
    assert len(pushed) == len(bad)  # each in a batch of its own
    # Not "later": a message with a time would wait in one worker's memory.
    assert not any(re.search('"eta": (?!null)', command) for command in pushed)
    assert done.batches_done == done.batches
    assert done.rows_done == 60
    assert done.rows_retried == len(bad)
    assert done.rows_quarantined == 0
    found = fetched(fleet, job)
    codes = {True: Rung.SELECTIVE_FP32, False: Rung.FP16}
    assert found["rows"].tolist() == list(range(60))
    assert found["precision"].tolist() == [PRECISION_CODES[codes[r in bad]] for r in range(60)]


def test_a_cancelled_job_stops_at_the_next_check_and_goes_on_without_loss(
    fleet, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path):
        job = submit(fleet, tiny, proteins)
        wait_for_batches(fleet, job)
        assert fleet.producer("cancel", job).returncode == 0
        queue = progress_of(fleet, job).queue
        wait_until(lambda: not Queues(fleet.ledger.redis).length(queue), 30)
        wait_until(lambda: not progress_of(fleet, job).leased, 15)
        stopped = progress_of(fleet, job).batches_done
        assert stopped < progress_of(fleet, job).batches
        assert submit(fleet, tiny, proteins) == job
        assert_nothing_was_lost(fleet, job, reference)


def test_clocks_that_are_five_minutes_off_stall_nothing(fleet, tiny, proteins, reference, tmp_path):
    """Two workers whose clocks differ by ten minutes: leases use Redis's time."""
    with ExitStack() as stack:
        workers = []
        for skew in (-300, 300):
            environment = {
                **fleet.environment,
                "PYTHONPATH": f"{SKEWED_CLOCK}:{fleet.environment.get('PYTHONPATH', '')}",
                "CLOCK_SKEW_SECONDS": str(skew),
            }
            log = tmp_path / f"worker{skew}.log"
            workers.append(stack.enter_context(running_worker(tiny, log, environment)))
        wait_until(lambda: len([w for w in fleet.ledger.workers.all() if w.weights]) == 2, 60)
        job = submit(fleet, tiny, proteins)
        with keeper(fleet):
            assert_nothing_was_lost(fleet, job, reference, seconds=30)
        for worker, skew in zip(workers, (-300, 300), strict=True):
            text = worker.log.read_text()
            assert f"of {job}: " in text
            logged = datetime.fromisoformat(text[:19])
            assert abs(logged - datetime.now() - timedelta(seconds=skew)) < timedelta(seconds=90)
    assert progress_of(fleet, job).leases_lost == 0


def test_those_who_ask_for_events_and_never_read_them_do_not_slow_a_job(
    fleet, redis, tiny, proteins, reference, tmp_path
):
    with ExitStack() as stack:
        client = stack.enter_context(redis.client)
        client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
        for _ in range(10):
            deaf = stack.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", redis.port))
            deaf.sendall(b"PSUBSCRIBE *\r\n")
        stack.enter_context(fleet.running_workers(tiny, tmp_path))
        job = submit(fleet, tiny, proteins)
        wait_for_batches(fleet, job, 5)
        with client.pipeline(transaction=False) as together:
            for _ in range(20_000):  # of the size of Celery's, as many as 7,000 batches give
                together.publish("events", bytes(500))
            heard = together.execute()
        assert heard[0] == 10
        wait_until(lambda: client.publish("events", "") == 0, 10)  # Redis lets go of them
        assert_nothing_was_lost(fleet, job, reference, seconds=45)
