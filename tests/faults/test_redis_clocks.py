"""A Redis whose clock is set while the fleet works, by libfaketime."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.ledger.leases import LEASE_SECONDS
from tests.faults.checks import (
    assert_nothing_was_lost,
    keeper,
    stopped_at_work,
    submit,
)
from tests.support.processes import Fleet, fleet_at, wait_until
from tests.support.redis_servers import RedisServer, running_redis

#: Where Debian has it; elsewhere, name it in LIBFAKETIME.
LIBRARIES = (
    os.environ.get("LIBFAKETIME", ""),
    *map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")),
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    library = next((path for path in LIBRARIES if path and Path(path).is_file()), None)
    if library is None:
        pytest.skip("needs libfaketime (apt-get install libfaketime), or its path in LIBFAKETIME")
    (tmp_path / "clock").write_text("+0\n")
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with running_redis(tmp_path / "redis", environment=environment) as server:
        yield server


@pytest.fixture
def fleet(redis: RedisServer, tmp_path: Path) -> Fleet:
    return fleet_at(redis.url, f"file://{tmp_path}/store")


@pytest.fixture
def set_clock(tmp_path: Path) -> Callable[[int], object]:
    """Set Redis's clock, in seconds from the right time."""
    return lambda seconds: (tmp_path / "clock").write_text(f"{seconds:+d}\n")


def test_a_clock_that_is_set_back_by_an_hour_costs_a_lease_at_most(
    fleet, redis, tiny, proteins, reference, tmp_path, set_clock
):
    """A worker is stopped, and Redis's clock set back: its batches run elsewhere."""
    with fleet.running_workers(tiny, tmp_path) as (worker,), keeper(fleet):
        job = submit(fleet, tiny, proteins)
        stopped_at_work(fleet, job, worker)
        before = fleet.ledger.now()
        set_clock(-3600)
        wait_until(lambda: fleet.ledger.now() < before, 10)
        folder = tmp_path / "second"
        folder.mkdir()
        with fleet.running_workers(tiny, folder):
            assert_nothing_was_lost(fleet, job, reference, seconds=2 * LEASE_SECONDS + 30)
        worker.process.resume()


def test_a_clock_that_is_set_ahead_loses_nothing(
    fleet, redis, tiny, proteins, reference, tmp_path, set_clock
):
    with fleet.running_workers(tiny, tmp_path), keeper(fleet):
        job = submit(fleet, tiny, proteins)
        set_clock(3600)
        assert_nothing_was_lost(fleet, job, reference)
