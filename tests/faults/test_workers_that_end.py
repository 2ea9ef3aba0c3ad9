"""Workers that are killed, frozen for a while, or stopped by SIGTERM."""

import json
import random
import signal
import time

import psutil
import pytest

from common.wire.queues import Queues
from tests.faults.checks import (
    assert_nothing_was_lost,
    claimed_by,
    is_elsewhere,
    keeper,
    progress_of,
    stopped_at_work,
    submit,
    wait_for_batches,
)
from tests.support.busy import busy_fleet
from tests.support.processes import Fleet, Worker, running_worker, wait_until

#: Seconds from a worker's death until its batches run elsewhere: a lease, and some more.
TAKEOVER_SECONDS = 45


def test_batches_of_a_killed_worker_run_elsewhere_in_45_seconds_and_count_once(
    fleet, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path, count=2) as [victim, _]:
        job = submit(fleet, tiny, proteins)
        with keeper(fleet):
            wait_for_batches(fleet, job)
            held = stopped_at_work(fleet, job, victim)
            process = victim.process
            process.kill()
            wait_until(
                lambda: all(is_elsewhere(fleet, job, process.pid, batch) for batch in held),
                TAKEOVER_SECONDS,
            )
            assert_nothing_was_lost(fleet, job, reference)
    assert progress_of(fleet, job).leases_lost == len(held)


@pytest.mark.slow
def test_25_kills_under_load_lose_no_row_and_double_none(
    fleet, tiny, proteins, reference, tmp_path
):
    """Each kill comes as soon as the worker has work, at any point of it."""
    draw = random.Random(2)
    # They differ in a limit that no sequence reaches: the same numbers three times.
    jobs = [submit(fleet, tiny, proteins, f"--max-residues={n}") for n in (1001, 1002, 1003)]
    with keeper(fleet):
        for number in range(25):
            log = tmp_path / f"victim-{number}.log"
            with running_worker(tiny, log, fleet.environment) as victim:
                wait_until(
                    lambda: (
                        psutil.Process(victim.supervisor.pid).children()
                        and any(claimed_by(fleet, job, victim) for job in jobs)
                    ),
                    60,
                )
                time.sleep(draw.uniform(0, 0.2))
                victim.kill()
        with fleet.running_workers(tiny, tmp_path):
            for job in jobs:
                assert_nothing_was_lost(fleet, job, reference)
    assert sum(progress_of(fleet, job).leases_lost for job in jobs) >= 25


def test_a_worker_told_to_end_does_so_within_a_stage_and_leaves_nothing_claimed(
    fleet, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job = submit(fleet, tiny, proteins)
        wait_for_batches(fleet, job)
        assert_ends_at_once_with_nothing_claimed(fleet, job, worker)
    # Nobody looks after lost work: there is none.
    with fleet.running_workers(tiny, tmp_path):
        assert_nothing_was_lost(fleet, job, reference)


def test_a_worker_told_to_end_does_so_as_fast_while_others_take_and_acknowledge_messages(
    fleet, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job = submit(fleet, tiny, proteins)
        wait_for_batches(fleet, job)
        with busy_fleet(fleet.ledger.redis):
            assert_ends_at_once_with_nothing_claimed(fleet, job, worker)
    with fleet.running_workers(tiny, tmp_path):
        assert_nothing_was_lost(fleet, job, reference)


def assert_ends_at_once_with_nothing_claimed(fleet: Fleet, job: str, worker: Worker) -> None:
    process = worker.process
    process.send_signal(signal.SIGTERM)
    worker.supervisor.terminate()
    assert worker.supervisor.wait(5) == 0
    assert not process.is_running()
    left = progress_of(fleet, job)
    assert left.leased == 0
    assert fleet.ledger.workers.all() == []
    messages = [json.loads(item) for item in Queues(fleet.ledger.redis).messages(left.queue)]
    assert left.batches_done + len(messages) == left.batches
    were_taken = [message["headers"].get("redelivered", False) for message in messages]
    assert were_taken == sorted(were_taken, reverse=True)  # those are the next ones


def test_a_worker_that_comes_back_after_its_lease_notices_and_counts_nothing_twice(
    fleet, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path, count=2) as [late, _]:
        job = submit(fleet, tiny, proteins)
        with keeper(fleet):
            wait_for_batches(fleet, job)
            held = stopped_at_work(fleet, job, late)
            try:
                wait_until(
                    lambda: all(
                        is_elsewhere(fleet, job, late.process.pid, batch) for batch in held
                    ),
                    TAKEOVER_SECONDS,
                )
            finally:
                late.process.resume()
            wait_until(lambda: "is dropped: another worker has it" in late.log.read_text(), 15)
            assert_nothing_was_lost(fleet, job, reference)
