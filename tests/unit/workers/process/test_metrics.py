"""A worker's metrics: those of all its processes, whatever becomes of them, and its health."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest

from common.local.fleet import OF_SERVICES, local_fleet
from tests.support.metrics import Values, values_of
from tests.support.processes import clean_environment
from tests.support.redis_servers import free_port
from workers.process.beat import Beat
from workers.process.exit_codes import EXIT_DEVICE_LOST
from workers.process.health import Health, Verdict
from workers.process.metrics import EXIT_HUNG, WorkerMetrics
from workers.process.slot import Slot, make_slots
from workers.runtime import watchdog
from workers.runtime.metrics import allocate

COUNTING = [sys.executable, "-m", "tests.support.counting_process"]


@pytest.fixture
def slots(tmp_path) -> list[Slot]:
    return make_slots(["0", "3"], tmp_path)


@pytest.fixture
def metrics(slots, tmp_path) -> WorkerMetrics:
    return WorkerMetrics(tmp_path / "metrics", "m", slots, Health())


@pytest.fixture
def scrape(metrics) -> Callable[[], Values]:
    return lambda: values_of(generate_latest(metrics.registry()).decode())


def run(slot: Slot, batches: int, running: int = 0) -> None:
    """Run a process that counts in a slot to its end."""
    command = [*COUNTING, slot.device, str(batches), str(running)]
    subprocess.run(command, env=slot.environment(clean_environment()), check=True)


@contextmanager
def waiting(slot: Slot, running: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has counted in a slot, and waits."""
    command = [*COUNTING, slot.device, "2", str(running), "wait"]
    environment = slot.environment(clean_environment())
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            yield process
        finally:
            process.kill()


def test_a_process_that_is_started_again_goes_on_with_the_counters_and_files(
    slots, scrape, tmp_path
):
    files = []
    for batches in (3, 4, 5):
        run(slots[0], batches, running=2)
        assert scrape()["running_batches", "cuda0"] == 2
        slots[0].note_end(1, 0.0)
        assert ("running_batches", "cuda0") not in scrape()
        files.append(sorted(file.name for file in (tmp_path / "metrics").iterdir()))
    found = scrape()
    assert found["batches_total", "cuda0", "done", "fp16"] == 12
    assert found["stage_seconds_count", "fetch"] == 12
    assert found["process_restarts_total", "error", "cuda0"] == 3
    assert files[0] == files[1] == files[2]


def test_a_process_that_is_killed_keeps_its_counters(slots, scrape):
    with waiting(slots[0], running=4) as process:
        process.kill()
        slots[0].note_end(process.wait(), 0.0)
    found = scrape()
    assert found["batches_total", "cuda0", "done", "fp16"] == 2
    assert ("running_batches", "cuda0") not in found
    assert found["process_restarts_total", "killed", "cuda0"] == 1


def test_processes_are_told_apart_by_their_device_and_their_stages_are_added(slots, scrape):
    for slot, batches in zip(slots, (3, 4), strict=True):
        run(slot, batches)
    found = scrape()
    assert found["batches_total", "cuda0", "done", "fp16"] == 3
    assert found["batches_total", "cuda3", "done", "fp16"] == 4
    assert found["stage_seconds_count", "fetch"] == 7
    assert found["stage_seconds_bucket", "+Inf", "fetch"] == 7


def test_what_never_happened_is_0_from_the_start(slots, scrape):
    run(slots[0], 0)
    found = scrape()
    for name in (
        ("store_errors_total", "read"),
        ("redis_errors_total",),
        ("stage_seconds_count", "compute"),
        ("packs_total", "cuda0"),
        ("device_losses_total", "cuda3"),
        ("process_restarts_total", "hung", "cuda3"),
    ):
        assert found[name] == 0, name
    assert ("device_memory_bytes", "cuda0") not in found  # nobody knows


def test_ends_are_counted_by_their_cause(slots, scrape):
    for code in (EXIT_DEVICE_LOST, EXIT_DEVICE_LOST, watchdog.EXIT_HUNG, -signal.SIGKILL, 1):
        slots[1].note_end(code, 0.0)
    found = scrape()
    causes = {name[1]: n for name, n in found.items() if name[0] == "process_restarts_total" and n}
    assert causes == {"device_lost": 2, "hung": 1, "killed": 1, "error": 1}
    assert found["device_losses_total", "cuda3"] == 2
    assert found["device_losses_total", "cuda0"] == 0
    assert watchdog.EXIT_HUNG == EXIT_HUNG


def test_metrics_are_served_though_a_process_is_frozen_or_begins_a_file(slots, metrics, tmp_path):
    port = free_port()
    metrics.serve(f"127.0.0.1:{port}")
    with waiting(slots[0], running=1) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert values_of(answer.read().decode())["running_batches", "cuda0"] == 1
    (tmp_path / "metrics" / "counter_9.db").touch()
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert values_of(answer.read().decode())["batches_total", "cuda0", "done", "fp16"] == 2


def test_files_that_are_gone_or_cannot_be_read_are_said_once(slots, metrics, scrape, caplog):
    slot = slots[0]
    slot.liveness.beat, slot.liveness._last, slot.has_loaded = Beat(), 0, True
    with waiting(slot, running=1) as process:
        slot.process = process
        assert slot.ready.holds
        assert scrape()["running_batches", "cuda0"] == 1
        assert caplog.messages == []
        shutil.rmtree(metrics.folder)
        for _ in range(2):
            assert scrape()["ready",] == 0
        metrics.folder.mkdir()
        (metrics.folder / "counter_0.db").write_bytes(b"\x40\0\0\0" + b"\x7f" * 60)
        for _ in range(2):
            scrape()
    gone, unreadable = caplog.messages
    assert "the files of the worker on GPU 0 are gone" in gone
    assert "files cannot be read" in unreadable


def test_a_full_disk_leaves_no_empty_file_of_metrics(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(OSError, match="No space left"):
        allocate(tmp_path / "counter_0.db")
    assert list(tmp_path.iterdir()) == []


def status_and_text(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_are_answered_by_the_health(metrics):
    port = free_port()
    metrics.serve(f"127.0.0.1:{port}")
    assert status_and_text(port, "/healthz")[0] == 200
    assert status_and_text(port, "/readyz")[0] == 503
    metrics.health.update(Verdict(False, "GPU 3 is frozen"), Verdict(True, "is ready"))
    assert status_and_text(port, "/healthz") == (503, "GPU 3 is frozen\n")
    assert status_and_text(port, "/readyz") == (200, "is ready\n")


def test_a_process_whose_files_cannot_be_written_goes_on_without_metrics(slots, tmp_path):
    slots[0].metrics = tmp_path / "nowhere"
    run(slots[0], 3)


def test_a_supervisor_does_not_import_torch():
    code = "import sys, workers.process.supervisor; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment())


def test_a_process_of_a_worker_without_metrics_is_given_no_folder(tmp_path):
    (slot,) = make_slots([], Path(tmp_path))
    assert "PROMETHEUS_MULTIPROC_DIR" not in slot.environment({})
    assert (slot.device, slot.metrics) == ("cpu", None)


def test_a_fleet_of_this_machine_does_not_take_the_address_of_a_service(monkeypatch, tmp_path):
    monkeypatch.setenv("VIRNUCPRO_METRICS", "127.0.0.1:9808")
    monkeypatch.setenv("VIRNUCPRO_LIVENESS_FILE", str(tmp_path / "alive"))
    with local_fleet(tmp_path / "fleet", str(tmp_path / "store"), gpus="none") as fleet:
        assert not OF_SERVICES & fleet.environment.keys()
