"""``worker start`` whose first process hangs at its first pack, as with a GPU that is gone.

It makes the file HUNG; if that is there already, nobody hangs. Leases, signs of life and the time
to end after SIGTERM are shorter than in earnest, and with PATIENCE so are the times for a pack and
for the store.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

from common import ledger
from workers import cli, engine, heartbeat, process, pulse, supervisor, tasks, watchdog
from workers.running import RunningPack

HUNG = Path(os.environ["HUNG"])

PATIENCE = float(os.environ.get("PATIENCE", "600"))


def hang_once(*arguments: Any) -> RunningPack:
    """Take the engine's lock and never give it back."""
    if not HUNG.exists():
        HUNG.touch()
        threading.Event().wait()
    return RunningPack(*arguments)


if __name__ == "__main__":
    supervisor.COMMAND = [sys.executable, "-m", "tests.support.hanging_worker"]
    pulse.UNWELL_SECONDS, pulse.SILENT_SECONDS = 3.0, 6.0
    heartbeat.RENEW_SECONDS, ledger.LEASE_SECONDS = 1, 5
    watchdog.DRAIN_SECONDS = 3.0
    engine.CPU_PACK_SECONDS = tasks.STORE_SECONDS = PATIENCE
    if sys.argv[1] == "start":
        cli.main()
    engine.RunningPack = hang_once  # type: ignore[assignment, misc]
    process.main()
