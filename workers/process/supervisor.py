"""The supervisor: one worker process per GPU, each with its GPU alone, restarted if it dies."""

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
from types import FrameType

from common.local.processes import start_dependent, wait_or_kill
from workers.process.liveness import BEAT_FILE, LOOK_SECONDS, Liveness

log = logging.getLogger(__name__)

#: Environment variable with the path of the file that a process writes once it is ready.
READY_FILE = "VIRNUCPRO_READY_FILE"

COMMAND = [sys.executable, "-m", "workers.process.worker"]

#: Seconds that a process gets to hand its batches back before it is killed.
GRACE_SECONDS = 30.0

#: Seconds between the death of a process and its successor: doubled each time up to the last,
#: and back to the first once a process has lived for ``HEALTHY_SECONDS``.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
HEALTHY_SECONDS = 120.0

#: Deaths before a process was ever ready, after which there is no hope.
HOPELESS = 5

#: A process ends with this code when no restart can help: wrong model, no broker.
EXIT_USER_ERROR, EXIT_HOPELESS = 2, 1


@dataclass
class Slot:
    """A place for one process: on a GPU, or on the CPU if ``gpu`` is None."""

    gpu: str | None
    #: The process writes it once its model is loaded.
    ready_file: Path
    pulse: Liveness
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    start_at: float = 0.0
    early_deaths: int = 0
    given_up: bool = False  # killed; it may take a while to die

    @property
    def where(self) -> str:
        return "the CPU" if self.gpu is None else f"GPU {self.gpu}"

    @property
    def is_well(self) -> bool:
        """Whether it has a process that beats, or waits to have one."""
        return self.process is None or self.pulse.is_well

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        # Set before the process imports torch: it never sees another GPU.
        gpu = "" if self.gpu is None else self.gpu
        return {
            **base,
            "CUDA_VISIBLE_DEVICES": gpu,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi numbers them
            READY_FILE: str(self.ready_file),
            BEAT_FILE: str(self.pulse.file),
        }


def supervise(
    arguments: Sequence[str],
    gpus: Sequence[str],
    environment: Mapping[str, str],
    liveness_file: Path | None = None,
) -> int:
    """Keep one process per GPU (or one on the CPU) until SIGTERM or SIGINT.

    Args:
        arguments: of ``python -m workers.process``.
        gpus: what ``CUDA_VISIBLE_DEVICES`` is to be for each; none: one process on the CPU.
        environment: of the processes.
        liveness_file: is touched while all processes are well, or about to be started again.

    Returns:
        0 after a signal, 2 if a process ended because only the user can help, 1 if none can.
    """
    folder = Path(tempfile.mkdtemp(prefix="virnucpro-"))
    devices: list[str | None] = [*gpus] or [None]
    slots = [
        Slot(gpu, folder / f"{number}.ready", Liveness(folder / f"{number}.beat"))
        for number, gpu in enumerate(devices)
    ]
    asked_to_stop = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    code = 0
    try:
        while not asked_to_stop and code == 0:
            now = time.monotonic()
            for slot in slots:
                code = code or tend(slot, arguments, environment, now)
            # One bad GPU, or a broker that is away for a while, is no reason to stop the others.
            if any(slot.ready_file.exists() for slot in slots):
                code = 0
            if liveness_file is not None and all(slot.is_well for slot in slots):
                with suppress(OSError):  # whoever looks at the file sees that it is old
                    liveness_file.touch()
            time.sleep(LOOK_SECONDS)
    finally:
        end_all(slots)
        shutil.rmtree(folder, ignore_errors=True)
    return code


def tend(slot: Slot, arguments: Sequence[str], environment: Mapping[str, str], now: float) -> int:
    """Start the slot's process if it has none and its time has come; see whether it died, and
    kill it if it is frozen.

    Returns:
        0, or the code with which the supervisor should end.
    """
    if slot.process is None:
        if now >= slot.start_at:
            command = [*COMMAND, *arguments]
            slot.pulse.reset()
            slot.given_up = False
            slot.process = start_dependent(command, env=slot.environment(environment))
            slot.started = now
        return 0
    code = slot.process.poll()
    if code is None:
        slot.pulse.look()
        if slot.pulse.has_stopped and not slot.given_up:
            log.error("The worker on %s shows no sign of life: it is killed.", slot.where)
            slot.process.kill()
            slot.given_up = True
        return 0
    slot.process = None
    verdict = plan_successor(slot, code, now)
    return EXIT_USER_ERROR if code == EXIT_USER_ERROR else verdict


def plan_successor(slot: Slot, code: int, now: float) -> int:
    """Set the time of a dead process's successor, or give up on one that was never ready."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    if now - slot.started > HEALTHY_SECONDS:
        slot.pause = FIRST_PAUSE
    verdict = 0
    if not slot.ready_file.exists():
        slot.early_deaths += 1
        if slot.early_deaths >= HOPELESS:
            log.error("The worker on %s died %d times (%s).", slot.where, slot.early_deaths, how)
            verdict = EXIT_HOPELESS
    # What only the user can mend ends the supervisor too, unless other workers are at work.
    successor = "" if code == EXIT_USER_ERROR else f"; the next start is in {slot.pause:g} s"
    log.error("The worker on %s ended (%s)%s.", slot.where, how, successor)
    slot.start_at = now + slot.pause
    slot.pause = min(2 * slot.pause, LONGEST_PAUSE)
    return verdict


def end_all(slots: Sequence[Slot]) -> None:
    """Ask all to end at once; those that have not after the grace period are killed."""
    running = [slot.process for slot in slots if slot.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        wait_or_kill(process, max(0.0, deadline - time.monotonic()))
