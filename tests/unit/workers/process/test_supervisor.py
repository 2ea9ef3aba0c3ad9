"""One process per GPU, each with its GPU alone; which are restarted, and which are not."""

import os
import signal
import subprocess
import sys
import time

from tests.support.processes import clean_environment, wait_until
from workers.process.liveness import Liveness
from workers.process.slot import Slot
from workers.process.supervisor import tend


def supervisor(script: str, gpus: str, tmp_path) -> "subprocess.Popen[str]":
    """A supervisor whose worker processes run ``script`` instead of a model."""
    code = (
        "import os, sys, workers.process.supervisor as s\n"
        f"s.COMMAND = [sys.executable, '-c', {script!r}]\n"
        f"sys.exit(s.supervise(['model'], {gpus!r}.split(), os.environ))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=clean_environment(OUT=str(tmp_path)), text=True
    )


WRITE_GPU = (
    "import os, pathlib, time\n"
    "out = pathlib.Path(os.environ['OUT'])\n"
    "(out / f'gpu{os.environ[\"CUDA_VISIBLE_DEVICES\"]}-{os.getpid()}').touch()\n"
)


def test_every_process_sees_one_gpu_and_all_end_with_the_supervisor(tmp_path):
    process = supervisor(WRITE_GPU + "time.sleep(60)", "0 3", tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("gpu*"))) == 2, 20)
    names = sorted(path.name.split("-")[0] for path in tmp_path.glob("gpu*"))
    assert names == ["gpu0", "gpu3"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    for path in tmp_path.glob("gpu*"):
        assert not alive(int(path.name.split("-")[1]))


def test_a_process_that_ends_is_restarted(tmp_path):
    process = supervisor(WRITE_GPU + "os._exit(1)", "0", tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("gpu*"))) >= 2, 20)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


def test_an_error_that_only_the_user_can_correct_ends_all(tmp_path):
    assert supervisor("raise SystemExit(2)", "0 1", tmp_path).wait(20) == 2


def test_a_process_that_is_never_ready_ends_the_supervisor_and_one_that_was_does_not(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(
        "workers.process.supervisor.COMMAND", [sys.executable, "-c", "raise SystemExit(7)"]
    )
    slot = slot_in(tmp_path)
    assert end_repeatedly(slot) == [0, 0, 0, 0, 1]
    slot.ready_file.touch()
    assert end_repeatedly(slot) == [0, 0, 0, 0, 0]


def slot_in(folder) -> Slot:
    return Slot(None, folder / "ready", Liveness(folder / "heartbeat"))


def end_repeatedly(slot: Slot) -> list[int]:
    """The verdicts on five ends in a row, on a clock of its own."""
    codes = []
    for _ in range(5):
        tend(slot, [], os.environ, slot.start_at)
        slot.process.wait()
        codes.append(tend(slot, [], os.environ, slot.start_at + 1))
    return codes


def test_pauses_between_restarts_grow(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "workers.process.supervisor.COMMAND", [sys.executable, "-c", "raise SystemExit(1)"]
    )
    slot, pauses = slot_in(tmp_path), []
    for _ in range(3):
        tend(slot, [], os.environ, slot.start_at)
        slot.process.wait()
        ended = time.monotonic()
        tend(slot, [], os.environ, ended)
        pauses.append(slot.start_at - ended)
    assert pauses == [1.0, 2.0, 4.0]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


GPU_0_IS_WELL = WRITE_GPU + (
    "if os.environ['CUDA_VISIBLE_DEVICES'] == '0':\n"
    "    pathlib.Path(os.environ['VIRNUCPRO_PROCESS_READY_FILE']).touch()\n"
    "    time.sleep(60)\n"
    "raise SystemExit(2)\n"
)


def test_one_bad_gpu_does_not_stop_the_others(tmp_path):
    process = supervisor(GPU_0_IS_WELL, "0 1", tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("gpu1-*"))) >= 3, 30)
    assert process.poll() is None
    assert len(list(tmp_path.glob("gpu0-*"))) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
