"""The metrics and the health of a worker that computes a job, and whose process is killed."""

import shutil
import signal
import socket
import subprocess
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil

from tests.support.metrics import Values, values_of
from tests.support.processes import run, wait_until
from tests.support.redis_servers import free_port


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_worker_s_metrics_are_those_of_its_job_and_outlive_its_process(
    fleet, tiny, examples, tmp_path
):
    port = free_port()

    def scrape() -> Values:
        return values_of(get(port, "/metrics")[1])

    options = f"--metrics=127.0.0.1:{port}"
    with fleet.running_workers(tiny, tmp_path, options) as [worker]:
        done = fleet.producer("submit", examples, "--model", tiny, "-o", tmp_path / "e.h5")
        assert done.returncode == 0, done.stderr
        (job,) = fleet.ledger.jobs.names()
        progress = fleet.ledger.jobs.progress(job)
        wait_until(lambda: get(port, "/readyz")[0] == 200, 30)
        found = scrape()
        rung = progress.first_rung
        batches = found["batches_total", "cpu", "done", rung]
        assert batches == progress.batches
        assert found["rows_total", "cpu", "embedded", rung] == progress.records == 25
        assert found["tokens_total", "cpu", rung] == progress.tokens_done
        assert found["pack_tokens_total", "cpu"] == progress.tokens
        assert found["pack_room_tokens_total", "cpu"] >= progress.tokens
        busy = found["device_busy_seconds_total", "cpu"]
        assert abs(busy - progress.device_seconds) < 0.01
        for stage in ("claim", "fetch", "wait", "compute", "write", "complete"):
            assert found["stage_seconds_count", stage] == batches, stage
        assert found["store_seconds_count", "write"] == batches
        assert found["redis_seconds_count",] > batches
        assert found["model_load_seconds", "cpu"] > 0
        assert found["process_info", "sdpa", "cpu", "CPU", "fp32"] == 1
        assert found["alive",] == found["ready",] == found["processes", "cpu"] == 1
        started = found["process_start_time_seconds",]
        assert abs(started - psutil.Process(worker.supervisor.pid).create_time()) < 2
        check_with_promtool(get(port, "/metrics")[1])

        worker.process.send_signal(signal.SIGKILL)
        wait_until(lambda: scrape()["process_restarts_total", "killed", "cpu"] == 1, 10)
        assert get(port, "/readyz")[0] == 503
        assert get(port, "/healthz")[0] == 200
        wait_until(lambda: get(port, "/readyz")[0] == 200, 60)
        after = scrape()
        assert after["batches_total", "cpu", "done", rung] == batches
        assert after["running_batches", "cpu"] == 0
        assert after["process_start_time_seconds",] == started


def check_with_promtool(text: str) -> None:
    """Have Prometheus's own tool look at metrics, if it is here."""
    if shutil.which("promtool") is not None:
        command = ["promtool", "check", "metrics"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_address_that_is_in_use_is_an_error_that_says_so(fleet, tiny):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f":{server.getsockname()[1]}"
        options = ["--model", tiny, "--gpus=none", f"--metrics={address}"]
        done = run("workers.cli", "start", *options, environment=fleet.environment)
    assert done.returncode == 2
    assert f"--metrics {address}: " in done.stderr
