"""docs/metrics.md names every metric, with its type, labels and meaning, and no other."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.ledger.ledger import Ledger
from common.wire.redis_client import redis_client
from producer.scheduling.fleet_reading import FleetReader
from producer.scheduling.keeper import Keeper
from producer.scheduling.metrics import make_registry
from producer.scheduling.publisher import Publisher
from tests.support.metrics_page import described, exported, markdown
from tests.support.stores import folder_store
from workers.process.health import Health
from workers.process.metrics import WorkerMetrics
from workers.process.slot import make_slots


def keeper_registry(folder: Path) -> CollectorRegistry:
    ledger = Ledger(redis_client("unix:///nowhere"))
    keeper = Keeper(folder_store(folder / "store"), ledger, Publisher(ledger, None, 1))
    registry, _ = make_registry(keeper, FleetReader(ledger, keeper.one_by_one))
    return registry


def worker_registry(folder: Path) -> CollectorRegistry:
    return WorkerMetrics(folder / "metrics", "m", make_slots([], folder), Health()).registry()


@pytest.mark.parametrize(
    ("heading", "make"), [("Keeper", keeper_registry), ("Workers", worker_registry)]
)
def test_the_page_has_the_metrics_of_the_code(heading, make, tmp_path):
    rows = exported(make(tmp_path))
    assert rows
    assert sorted(described(heading)) == rows, f"docs/metrics.md should have:\n{markdown(rows)}"
