"""A Redis that restarts, crashes, hangs, loses connections, is full, or is replaced."""

import re
import time

import pytest

from tests.faults.checks import (
    assert_nothing_was_lost,
    keeper,
    progress_of,
    submit,
    wait_for_batches,
)
from tests.support.processes import fleet_at
from tests.support.redis_servers import running_redis


def test_a_redis_that_restarts_and_crashes_twice_is_found_again_in_10_seconds_each_time(
    fleet, redis, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job, process = submit(fleet, tiny, proteins), worker.process
        with keeper(fleet):
            wait_for_batches(fleet, job)
            for end in (redis.stop, redis.kill, redis.kill):
                end()
                time.sleep(1)
                redis.start()
                wait_for_batches(fleet, job, 1, seconds=10)
            assert_nothing_was_lost(fleet, job, reference)
        assert worker.process == process  # with its model


@pytest.mark.slow
def test_a_redis_that_hangs_for_40_seconds_is_served_again_in_30(
    fleet, redis, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job, process = submit(fleet, tiny, proteins), worker.process
        with keeper(fleet):
            wait_for_batches(fleet, job)
            redis.freeze()
            time.sleep(40)
            redis.thaw()
            wait_for_batches(fleet, job, 1, seconds=30)
            assert_nothing_was_lost(fleet, job, reference)
        assert worker.process == process


def test_connections_that_the_network_forgot_are_replaced_in_30_seconds(
    far_fleet, fleet, network, tiny, proteins, reference, tmp_path
):
    with far_fleet.running_workers(tiny, tmp_path) as [worker]:
        job, process = submit(fleet, tiny, proteins), worker.process
        with keeper(fleet):
            wait_for_batches(fleet, job)
            network.blackhole()
            time.sleep(1)  # whatever was on its way has arrived
            network.heal()
            wait_for_batches(fleet, job, 1, seconds=30)
            assert_nothing_was_lost(fleet, job, reference)
        assert worker.process == process


@pytest.mark.slow
def test_copies_that_a_lost_connection_makes_of_a_batch_are_dropped_at_the_claim(
    far_fleet, fleet, redis, network, tiny, proteins, reference, tmp_path
):
    network.delay = 0.01
    with far_fleet.running_workers(tiny, tmp_path) as [worker]:
        job, process = submit(fleet, tiny, proteins), worker.process
        with keeper(fleet):
            for _ in range(5):
                wait_for_batches(fleet, job, 5)
                with redis.client as client:
                    client.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
                wait_for_batches(fleet, job, 5)
                network.cut()
            assert_nothing_was_lost(fleet, job, reference)
        # Held by the first copy still, or done by it.
        assert re.search("is skipped: (held|done)", worker.log.read_text())
        assert worker.process == process


def test_a_redis_that_is_full_for_a_while_ends_no_worker_and_loses_nothing(
    fleet, redis, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job, process = submit(fleet, tiny, proteins), worker.process
        with keeper(fleet):
            wait_for_batches(fleet, job)
            redis.limit_memory(-100_000)
            time.sleep(5)
            before = progress_of(fleet, job).batches_done
            assert before < progress_of(fleet, job).batches
            redis.limit_memory(None)
            assert_nothing_was_lost(fleet, job, reference)
        assert worker.process == process


def test_a_producer_says_that_redis_is_full_and_goes_on_when_it_is_not(
    fleet, redis, tiny, proteins, reference, tmp_path
):
    redis.limit_memory(50_000)
    full = fleet.producer("submit", proteins, "--model", tiny, "--batch-tokens=2000")
    assert full.returncode == 2
    assert "memory" in full.stderr
    assert "Traceback" not in full.stderr
    redis.limit_memory(None)
    with fleet.running_workers(tiny, tmp_path):
        assert_nothing_was_lost(fleet, submit(fleet, tiny, proteins), reference)


def test_a_failover_that_leaves_the_old_redis_read_only_is_followed(
    far_fleet, redis, network, tiny, proteins, reference, tmp_path
):
    with running_redis(tmp_path / "replica") as replica:
        replica.follow(redis)
        # Before the worker: it would be done with all of them by the time that they are copied.
        job = submit(far_fleet, tiny, proteins)
        with far_fleet.running_workers(tiny, tmp_path) as [worker], keeper(far_fleet):
            process = worker.process
            wait_for_batches(far_fleet, job)
            network.target = replica.port
            redis.fail_over_to(replica)
            fleet = fleet_at(replica.url, far_fleet.store_url)
            wait_for_batches(fleet, job, 1, seconds=30)
            assert_nothing_was_lost(fleet, job, reference)
            assert worker.process == process
