"""One process per GPU, each with its GPU alone; which are restarted, and which are not."""

import os
import signal
import subprocess
import sys
import time

import psutil

from tests.support.processes import clean_environment, wait_until
from workers.process.beat import Beat, block_of
from workers.process.liveness import Liveness
from workers.process.slot import Slot
from workers.process.supervisor import tend


def supervisor(script: str, gpus: str, tmp_path, options: str = "") -> "subprocess.Popen[bytes]":
    """A supervisor whose worker processes run ``script`` instead of a model.

    Its liveness file is ``alive``, its ready file ``ready``.
    """
    code = (
        "import os, sys, pathlib, workers.process.supervisor as s\n"
        "from workers.process import health, liveness, slot\n"
        "slot.FIRST_PAUSE, slot.PROVEN_SECONDS = 0.1, 2.0\n"
        f"s.COMMAND = [sys.executable, '-c', {script!r}]\n"
        "out = pathlib.Path(os.environ['OUT'])\n"
        "shown = health.Health(out / 'alive', out / 'ready')\n"
        f"sys.exit(s.supervise(['model'], {gpus!r}.split(), os.environ, shown, {options}))\n"
    )
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code], env=clean_environment(OUT=str(tmp_path)), stderr=log
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


# --- probes ---------------------------------------------------------------------------------------

BEAT, REFUSED = block_of(Beat()), block_of(Beat(alive=False, consumes=False, reason="refused"))

READY = WRITE_GPU + (
    "ready = pathlib.Path(os.environ['VIRNUCPRO_PROCESS_READY_FILE'])\n"
    "beat = pathlib.Path(os.environ['VIRNUCPRO_HEARTBEAT_FILE'])\n"
    "ready.touch()\n"
    f"beat.write_bytes({BEAT!r})\n"
)

#: Consumes, and says so until a file is there that forbids it; ends slowly.
CONSUMES = READY + (
    "import signal\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), os._exit(0)))\n"
    "while True:\n"
    "    if not (out / 'silent').exists(): beat.touch()\n"
    f"    if (out / 'refused').exists(): beat.write_bytes({REFUSED!r})\n"
    "    time.sleep(0.1)\n"
)


def age(path) -> float:
    return time.time() - path.stat().st_mtime


def test_the_ready_file_is_there_once_all_consume_and_goes_before_the_processes_do(tmp_path):
    ready = tmp_path / "ready"
    ready.touch()  # of a supervisor that was killed
    os.utime(ready, (0, 0))
    old = ready.stat().st_ino
    os.link(ready, tmp_path / "kept")  # so that no other file gets its number
    process = supervisor(CONSUMES, "0 1", tmp_path)
    try:
        wait_until(lambda: ready.exists() and ready.stat().st_ino != old, 20)
        names = list(tmp_path.glob("gpu*"))
        assert len(names) == 2
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not ready.exists(), 5)
        assert any(running(int(path.name.split("-")[1])) for path in names)
        assert process.wait(20) == 0
        assert not ready.exists()
    finally:
        process.kill()
        process.wait()


def test_one_process_that_is_not_alive_makes_both_files_say_so(tmp_path):
    process = supervisor(CONSUMES, "0 1", tmp_path)
    try:
        wait_until((tmp_path / "ready").exists, 20)
        (tmp_path / "refused").touch()
        wait_until(lambda: not (tmp_path / "ready").exists(), 10)
        wait_until(lambda: age(tmp_path / "alive") > 1, 10)
    finally:
        process.kill()
        process.wait()


def test_processes_that_crash_again_and_again_though_they_were_ready_are_not_alive(tmp_path):
    process = supervisor(READY + "time.sleep(0.5)\nos._exit(1)", "0", tmp_path)
    try:
        wait_until(lambda: len(list(tmp_path.glob("gpu*"))) > 5, 60)
        assert process.poll() is None
        wait_until(lambda: age(tmp_path / "alive") > 2, 30)
    finally:
        process.kill()
        process.wait()


def test_a_folder_of_the_supervisor_that_is_removed_is_made_again_and_the_process_goes_on(
    tmp_path, monkeypatch
):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    script = CONSUMES.replace("): beat.touch()", ") and beat.parent.exists(): beat.touch()")
    process = supervisor(script, "0", tmp_path)
    try:
        wait_until((tmp_path / "ready").exists, 20)
        (folder,) = (tmp_path / "tmp").iterdir()
        folder.rename(tmp_path / "gone")
        wait_until(lambda: list(folder.glob("*.heartbeat")), 10)
        wait_until(lambda: age(tmp_path / "ready") < 1, 10)
        assert len(list(tmp_path.glob("gpu*"))) == 1
        assert (tmp_path / "log").read_text().count(f"{folder} was removed") == 1
    finally:
        process.kill()
        process.wait()


# --- devices --------------------------------------------------------------------------------------


def test_three_lost_devices_end_the_supervisor_with_a_code_of_its_own_and_it_says_why(tmp_path):
    process = supervisor(READY + "os._exit(70)", "0", tmp_path)
    assert process.wait(60) == 70
    assert "Devices were lost 3 times within 30 minutes" in (tmp_path / "log").read_text()
    assert len(list(tmp_path.glob("gpu0-*"))) == 3


def test_another_number_of_lost_devices_can_be_set(tmp_path):
    process = supervisor(READY + "os._exit(70)", "0", tmp_path, "max_device_losses=1")
    assert process.wait(60) == 70
    assert len(list(tmp_path.glob("gpu0-*"))) == 1


UNUSABLE = "os._exit(72)\n"


def test_a_gpu_that_cannot_be_used_is_an_error_if_it_is_required(tmp_path):
    assert supervisor(WRITE_GPU + UNUSABLE, "0", tmp_path, "gpus_required=True").wait(60) == 2
    assert supervisor(WRITE_GPU + UNUSABLE, "0", tmp_path).wait(60) == 1  # after some attempts


def test_a_gpu_that_can_no_longer_be_used_is_lost(tmp_path):
    once = "first = len(list(out.glob('gpu*'))) == 1\n"
    script = READY + once + "time.sleep(1)\nos._exit(1 if first else 72)"
    process = supervisor(script, "0", tmp_path, "gpus_required=True, max_device_losses=2")
    assert process.wait(60) == 70
    assert len(list(tmp_path.glob("gpu0-*"))) == 3
    assert (tmp_path / "log").read_text().count("ended (exit code 72)") == 2


def running(pid: int) -> bool:
    """Whether a process runs: one that ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
