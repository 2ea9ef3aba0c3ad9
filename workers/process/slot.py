"""The place of one worker process of a supervisor, and what is known of it."""

import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from workers.process.environment import HEARTBEAT_FILE, METRICS_PLACE, PROCESS_READY_FILE
from workers.process.exit_codes import EXIT_DEVICE_LOST, EXIT_DEVICE_UNUSABLE, EXIT_USER_ERROR
from workers.process.health import Verdict
from workers.process.liveness import Liveness
from workers.runtime.metrics import FOLDER

#: Seconds between the end of a process and the next start. They double with every end in a row up
#: to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

#: Ends in a row after which a place is no longer alive, and seconds for which a process consumes
#: without a break to end the row. How long it has lived says nothing: a large model loads for
#: minutes. A batch that crashes its process is isolated after as many ends.
MAX_ENDS, PROVEN_SECONDS = 5, 30.0


@dataclass
class Slot:
    """The place of one process: on a GPU, or on the CPU if ``gpu`` is None."""

    gpu: str | None
    #: The file that the process writes once its model is loaded.
    ready_file: Path
    liveness: Liveness
    process: "subprocess.Popen[bytes] | None" = None
    start_at: float = 0.0
    ends: int = 0  # in a row
    early_ends: int = 0
    has_loaded: bool = False  # this process; its ready file may be cleaned away later
    was_ready: bool = False  # this process or one before it
    trial: str | None = None  # why it is not alive before a process has proven itself
    killed: bool = False  # a process may take a while to end even then
    place: int = 0  # among those of its supervisor
    metrics: Path | None = None  # folder of the files of its metrics, if they are served
    codes: Counter[int] = field(default_factory=Counter)  # of all ends
    losses: int = 0  # of its device

    @property
    def where(self) -> str:
        """The device, for messages."""
        return "the CPU" if self.gpu is None else f"GPU {self.gpu}"

    @property
    def device(self) -> str:
        """The device in a word, as in the names of workers."""
        return "cpu" if self.gpu is None else f"cuda{self.gpu}"

    @property
    def pause(self) -> float:
        """Return the seconds between the last end and the next start."""
        return min(FIRST_PAUSE * 2 ** max(0, self.ends - 1), LONGEST_PAUSE)

    @property
    def alive(self) -> Verdict:
        """Return whether the process is alive, or is loading, or about to be started again."""
        if self.trial is not None:
            return self._verdict(False, self.trial)
        if self.process is None:
            return self._verdict(True, "is started again soon")
        problem = self.liveness.problem
        if problem is not None:
            return self._verdict(False, f"is not alive: {problem}")
        return self._verdict(True, "is alive")

    @property
    def ready(self) -> Verdict:
        """Return whether the process has loaded its model and consumes."""
        if self.process is None:
            return self._verdict(False, "is not running")
        if self.liveness.consumes and self.has_loaded:
            return self._verdict(True, "consumes")
        return self._verdict(False, f"is not ready: {self.liveness.stage}")

    def check(self) -> None:
        """Check how the process is; to be called every ``CHECK_SECONDS``."""
        self.has_loaded = self.has_loaded or self.ready_file.exists()
        self.was_ready = self.was_ready or self.has_loaded
        if self.process is not None:
            self.liveness.check()
            if self.liveness.consuming_seconds >= PROVEN_SECONDS:
                self.trial, self.ends = None, 0

    def note_start(self, process: "subprocess.Popen[bytes]") -> None:
        """Note a new process."""
        self.process = process
        self.killed = self.has_loaded = False

    def note_end(self, code: int, now: float, *, gpus_required: bool = False) -> int:
        """Count an end of the process with ``code``, and plan the next start.

        Returns:
            What the end means for the worker: ``code``, or another exit code.
        """
        verdict = code
        if code == EXIT_DEVICE_UNUSABLE and self.was_ready:  # a GPU that worked before is lost
            verdict = EXIT_DEVICE_LOST
        elif code == EXIT_DEVICE_UNUSABLE and gpus_required:
            verdict = EXIT_USER_ERROR
        self.process = None
        self.codes[code] += 1
        self.losses += verdict == EXIT_DEVICE_LOST
        if self.metrics is not None:  # its counters stay, its gauges go
            mark_process_dead(self.place, str(self.metrics))  # type: ignore[no-untyped-call]
        self.ends += 1
        self.start_at = now + self.pause
        if not self.was_ready:
            self.early_ends += 1
        if self.ends >= MAX_ENDS:
            self.trial = f"ended {self.ends} times in a row"
        if verdict == EXIT_USER_ERROR:
            self.trial = "ended with an error that only the user can correct"
        return verdict

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the process."""
        # Set before the process imports torch: it never sees another GPU.
        gpu = "" if self.gpu is None else self.gpu
        metrics = {FOLDER: str(self.metrics), METRICS_PLACE: str(self.place)}
        return {
            **base,
            **(metrics if self.metrics is not None else {}),
            "CUDA_VISIBLE_DEVICES": gpu,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi numbers them
            PROCESS_READY_FILE: str(self.ready_file),
            HEARTBEAT_FILE: str(self.liveness.file),
        }

    def _verdict(self, holds: bool, what: str) -> Verdict:
        return Verdict(holds, f"the worker on {self.where} {what}")


def make_slots(gpus: Sequence[str], folder: Path) -> list[Slot]:
    """Return a slot for each GPU, or one for the CPU, with files in ``folder``."""
    devices: list[str | None] = [*gpus] or [None]
    return [
        Slot(
            gpu,
            folder / f"{number}.ready",
            Liveness(folder / f"{number}.heartbeat"),
            place=number,
        )
        for number, gpu in enumerate(devices)
    ]
