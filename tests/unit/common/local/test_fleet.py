"""A fleet of this machine: whose jobs an ended worker concerns."""

import sys
from contextlib import ExitStack

import pytest

from common.errors import UserError
from common.local.fleet import LocalFleet, local_fleet
from common.local.processes import start_dependent, stop
from common.rungs import Rung
from tests.support.processes import START_SECONDS, wait_until


def test_an_ended_worker_is_an_error_for_jobs_of_its_model_alone(tmp_path):
    redis = start_dependent([sys.executable, "-c", "import time; time.sleep(600)"])
    worker = start_dependent([sys.executable, "-c", ""])
    worker.wait()
    fleet = LocalFleet(
        broker_url="unix:///nowhere",
        folder=tmp_path,
        redis=redis,
        gpus="none",
        environment={},
        stack=ExitStack(),
        workers={("a", Rung.FP16): worker},
    )
    fleet.log.write_text("no weights here\n")
    try:
        with pytest.raises(UserError, match="no weights here"):
            fleet.check("a")
        fleet.check("b")
    finally:
        stop(redis, 5)


def test_a_worker_whose_weights_cannot_be_reached_ends_as_somebody_waits_for_it(tmp_path):
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    store = str(tmp_path / "store")
    with local_fleet(tmp_path / "fleet", store, gpus="none", environment=away) as fleet:
        fleet.start_worker("esm2_t6_8M_UR50D")
        [worker] = fleet.workers.values()
        wait_until(lambda: worker.poll() is not None, START_SECONDS)
        with pytest.raises(UserError, match="worker download --model esm2_t6_8M_UR50D --to"):
            fleet.check("esm2_t6_8M_UR50D")


def test_redis_starts_below_a_folder_for_temporary_files_with_a_long_name(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with local_fleet(tmp_path / "fleet", str(tmp_path / "store"), gpus="none") as fleet:
        assert fleet.redis.poll() is None
