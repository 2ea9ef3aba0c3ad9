"""A Redis whose clock is set while the fleet works, by libfaketime."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.ledger.leases import LEASE_SECONDS
from tests.faults.checks import (
    assert_nothing_was_lost,
    keeper,
    stopped_at_work,
    submit,
)
from tests.support.clocks import Clock, make_clock
from tests.support.processes import Fleet, fleet_at, wait_until
from tests.support.redis_servers import RedisServer, running_redis


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    found = make_clock(tmp_path / "clock")
    if found is None:
        pytest.skip("needs libfaketime (apt-get install libfaketime), or its path in LIBFAKETIME")
    return found


@pytest.fixture
def redis(clock: Clock, tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis", environment=clock.environment) as server:
        yield server


@pytest.fixture
def fleet(redis: RedisServer, tmp_path: Path) -> Fleet:
    return fleet_at(redis.url, f"file://{tmp_path}/store")


def test_a_clock_that_is_set_back_by_an_hour_costs_a_lease_at_most(
    fleet, redis, tiny, proteins, reference, tmp_path, clock
):
    """A worker is stopped, and Redis's clock set back: its batches run elsewhere."""
    with fleet.running_workers(tiny, tmp_path) as (worker,), keeper(fleet):
        job = submit(fleet, tiny, proteins)
        stopped_at_work(fleet, job, worker)
        before = fleet.ledger.now()
        clock.set(-3600)
        wait_until(lambda: fleet.ledger.now() < before, 10)
        folder = tmp_path / "second"
        folder.mkdir()
        with fleet.running_workers(tiny, folder):
            assert_nothing_was_lost(fleet, job, reference, seconds=2 * LEASE_SECONDS + 30)
        worker.process.resume()


def test_a_clock_that_is_set_ahead_loses_nothing(
    fleet, redis, tiny, proteins, reference, tmp_path, clock
):
    with fleet.running_workers(tiny, tmp_path), keeper(fleet):
        job = submit(fleet, tiny, proteins)
        clock.set(3600)
        assert_nothing_was_lost(fleet, job, reference)
