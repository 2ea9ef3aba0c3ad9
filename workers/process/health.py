"""The health of a worker, as its supervisor sees it, for probes: by files, and over HTTP."""

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from workers.process.liveness import touch

#: Seconds without an update after which a supervisor itself counts as hung.
UPDATE_SECONDS = 10.0


class Verdict(NamedTuple):
    """Whether something holds, and why (not)."""

    holds: bool
    reason: str


class Health:
    """Whether all processes of a worker are alive, and whether all are ready.

    The supervise loop updates it; any thread may read it.

    Args:
        liveness_file: touched at every update while the worker is alive.
        ready_file: exists while the worker is ready.
    """

    def __init__(self, liveness_file: Path | None = None, ready_file: Path | None = None) -> None:
        self.liveness_file = liveness_file
        self.ready_file = ready_file
        self._verdicts = Verdict(True, "starting"), Verdict(False, "starting")
        self._updated = time.monotonic()
        self._ended = False

    @property
    def alive(self) -> bool:
        """Whether all processes consume, load their model, or wait for a Redis that is away."""
        return self._verdict(0).holds

    @property
    def alive_reason(self) -> str:
        return self._verdict(0).reason

    @property
    def ready(self) -> bool:
        """Whether all processes have loaded their model and consume."""
        return self._verdict(1).holds

    @property
    def ready_reason(self) -> str:
        return self._verdict(1).reason

    def update(self, alive: Verdict, ready: Verdict) -> None:
        """Set both verdicts, and show them by the files."""
        if self._ended:
            ready = Verdict(False, "the worker ends")
        self._verdicts, self._updated = (alive, ready), time.monotonic()
        with suppress(OSError):  # a file that gets old fails the probe
            if self.liveness_file is not None and alive.holds:
                touch(self.liveness_file)
        with suppress(OSError):
            if self.ready_file is not None:
                if ready.holds:
                    touch(self.ready_file)
                else:
                    self.ready_file.unlink(missing_ok=True)

    def end(self) -> None:
        """Show that the worker ends: it is not ready from now on, whatever is found later."""
        self._ended = True
        self.update(self._verdicts[0], self._verdicts[1])

    def _verdict(self, number: int) -> Verdict:
        silent = time.monotonic() - self._updated
        if silent > UPDATE_SECONDS and not self._ended:
            return Verdict(False, f"no process was checked for {silent:.0f} s")
        return self._verdicts[number]
