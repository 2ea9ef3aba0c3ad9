"""``worker start`` whose first process hangs at its first pack, as with a GPU that is gone.

It writes its number into the file HUNG; with FREEZE set, nobody hangs. Whatever is waited for is
waited for less long than in earnest.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

from common import ledger
from workers import cli, engine, heartbeat, process, pulse, supervisor, watchdog
from workers.running import RunningPack

HUNG = Path(os.environ["HUNG"])

PACK_SECONDS = float(os.environ.get("PACK_SECONDS", "600"))


def hang_once(*arguments: Any) -> RunningPack:
    """Take the engine's lock and never give it back."""
    if not HUNG.exists():
        HUNG.write_text(str(os.getpid()))
        threading.Event().wait()
    return RunningPack(*arguments)


if __name__ == "__main__":
    supervisor.COMMAND = [sys.executable, "-m", "tests.support.hanging_worker"]
    pulse.UNWELL_SECONDS, pulse.SILENT_SECONDS = 3.0, 6.0
    heartbeat.RENEW_SECONDS, ledger.LEASE_SECONDS = 1, 5
    watchdog.DRAIN_SECONDS = 3.0
    engine.CPU_PACK_SECONDS = PACK_SECONDS
    if sys.argv[1] == "start":
        cli.main()
    engine.RunningPack = hang_once  # type: ignore[assignment, misc]
    process.main()
