"""A fleet of this machine: whose jobs an ended worker concerns."""

import sys
from contextlib import ExitStack

import pytest

from common.errors import UserError
from common.local.fleet import LocalFleet
from common.local.processes import start_dependent, stop
from common.rungs import Rung


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
