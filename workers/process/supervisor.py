"""The supervisor: starts one worker process per GPU and restarts those that end."""

import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.local.processes import start_dependent, wait_or_kill
from workers.process.environment import HEARTBEAT_FILE, READY_FILE
from workers.process.liveness import CHECK_SECONDS, Liveness, touch

log = logging.getLogger(__name__)

#: Command line of a worker process, without its arguments.
COMMAND = [sys.executable, "-P", "-m", "workers.process.worker"]

#: Seconds between a process's request to end and its kill: it requeues its batches meanwhile.
GRACE_SECONDS = 30.0

#: Seconds between the end of a process and the next start. They double with every restart up to the
#: longest, and are the first again once a process has lived for ``HEALTHY_SECONDS``.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
HEALTHY_SECONDS = 120.0

#: Processes that end before one was ever ready, after which the supervisor ends.
MAX_EARLY_ENDS = 5

#: Exit codes of the supervisor: its processes never get ready, or only the user can correct what
#: is wrong. A process ends with the second too.
EXIT_NEVER_READY, EXIT_USER_ERROR = 1, 2


@dataclass
class Slot:
    """The place of one process: on a GPU, or on the CPU if ``gpu`` is None."""

    gpu: str | None
    #: The file that the process writes once its model is loaded.
    ready_file: Path
    liveness: Liveness
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    start_at: float = 0.0
    early_ends: int = 0
    killed: bool = False  # a process may take a while to end even then

    @property
    def where(self) -> str:
        """The device, for messages."""
        return "the CPU" if self.gpu is None else f"GPU {self.gpu}"

    @property
    def is_live(self) -> bool:
        """Whether the process is live, or none is due."""
        return self.process is None or self.liveness.is_live

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the process."""
        # Set before the process imports torch: it never sees another GPU.
        gpu = "" if self.gpu is None else self.gpu
        return {
            **base,
            "CUDA_VISIBLE_DEVICES": gpu,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi numbers them
            READY_FILE: str(self.ready_file),
            HEARTBEAT_FILE: str(self.liveness.file),
        }


def supervise(
    arguments: Sequence[str],
    gpus: Sequence[str],
    environment: Mapping[str, str],
    liveness_file: Path | None = None,
) -> int:
    """Keep one process per GPU, or one on the CPU, until SIGTERM or SIGINT.

    Args:
        arguments: of ``python -m workers.process.worker``.
        gpus: the ``CUDA_VISIBLE_DEVICES`` of each process; empty: one process on the CPU.
        environment: of the processes.
        liveness_file: touched while every process is live or about to be restarted.

    Returns:
        The exit code: 0 after a signal, else ``EXIT_NEVER_READY`` or ``EXIT_USER_ERROR``.
    """
    folder = Path(tempfile.mkdtemp(prefix="virnucpro-"))
    slots = make_slots(gpus, folder)
    signals = received_signals()
    code = 0
    try:
        while not signals and code == 0:
            code = tend_all(slots, arguments, environment)
            if liveness_file is not None and all(slot.is_live for slot in slots):
                with suppress(OSError):  # a file that gets old fails the probe
                    touch(liveness_file)
            time.sleep(CHECK_SECONDS)
    finally:
        end_all(slots)
        shutil.rmtree(folder, ignore_errors=True)
    return code


def make_slots(gpus: Sequence[str], folder: Path) -> list[Slot]:
    """Return a slot for each GPU, or one for the CPU, with files in ``folder``."""
    devices: list[str | None] = [*gpus] or [None]
    return [
        Slot(gpu, folder / f"{number}.ready", Liveness(folder / f"{number}.heartbeat"))
        for number, gpu in enumerate(devices)
    ]


def received_signals() -> list[int]:
    """Return a list to which every SIGTERM and SIGINT from now on is added."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return received


def tend_all(
    slots: Sequence[Slot], arguments: Sequence[str], environment: Mapping[str, str]
) -> int:
    """Tend every slot; return 0, or the exit code with which the supervisor should end."""
    now = time.monotonic()
    codes = [tend(slot, arguments, environment, now) for slot in slots]
    # One bad GPU, or a broker that is away for a while, is no reason to stop the others.
    if any(slot.ready_file.exists() for slot in slots):
        return 0
    return next((code for code in codes if code != 0), 0)


def tend(slot: Slot, arguments: Sequence[str], environment: Mapping[str, str], now: float) -> int:
    """Start the slot's process if one is due; kill it if it is frozen; see whether it ended.

    Returns:
        0, or the exit code with which the supervisor should end.
    """
    if slot.process is None:
        if now >= slot.start_at:
            start(slot, arguments, environment, now)
        return 0
    code = slot.process.poll()
    if code is None:
        kill_if_frozen(slot, slot.process)
        return 0
    slot.process = None
    verdict = plan_restart(slot, code, now)
    return EXIT_USER_ERROR if code == EXIT_USER_ERROR else verdict


def start(slot: Slot, arguments: Sequence[str], environment: Mapping[str, str], now: float) -> None:
    """Start the slot's process."""
    slot.liveness.reset()
    slot.killed = False
    slot.process = start_dependent([*COMMAND, *arguments], env=slot.environment(environment))
    slot.started = now


def kill_if_frozen(slot: Slot, process: "subprocess.Popen[bytes]") -> None:
    """Check the slot's process for a heartbeat; kill it if it is frozen."""
    slot.liveness.check()
    if slot.liveness.is_frozen and not slot.killed:
        log.error("The worker on %s is frozen (no heartbeat): it is killed.", slot.where)
        process.kill()
        slot.killed = True


def plan_restart(slot: Slot, code: int, now: float) -> int:
    """Set the time of the next start after a process ended with ``code``.

    Returns:
        0, or ``EXIT_NEVER_READY`` if too many ended before one was ready.
    """
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    if now - slot.started > HEALTHY_SECONDS:
        slot.pause = FIRST_PAUSE
    verdict = 0
    if not slot.ready_file.exists():
        slot.early_ends += 1
        if slot.early_ends >= MAX_EARLY_ENDS:
            log.error(
                "The worker on %s ended %d times before it was ready (%s).",
                *(slot.where, slot.early_ends, how),
            )
            verdict = EXIT_NEVER_READY
    # An error that only the user can correct ends the supervisor, unless other workers are ready.
    restart = "" if code == EXIT_USER_ERROR else f"; it is restarted in {slot.pause:g} s"
    log.error("The worker on %s ended (%s)%s.", slot.where, how, restart)
    slot.start_at = now + slot.pause
    slot.pause = min(2 * slot.pause, LONGEST_PAUSE)
    return verdict


def end_all(slots: Sequence[Slot]) -> None:
    """Ask all processes to end; kill those that have not after ``GRACE_SECONDS``."""
    running = [slot.process for slot in slots if slot.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        wait_or_kill(process, max(0.0, deadline - time.monotonic()))
