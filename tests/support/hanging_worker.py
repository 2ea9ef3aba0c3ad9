"""``worker start`` whose first process hangs at its first pack, as if its GPU were lost.

The process creates the file HUNG before it hangs; if the file exists, no process hangs. Leases,
heartbeats and the time to end after SIGTERM are shorter than in production; PATIENCE sets the time
limits for a pack and for the store.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

from common.ledger import leases
from common.logs import start_logs
from workers import cli
from workers.batches import lease, lease_renewer, runner
from workers.engine import engine
from workers.engine.in_flight import PackInFlight
from workers.process import heartbeat, liveness, supervisor
from workers.process import worker as process
from workers.runtime import watchdog

HUNG = Path(os.environ["HUNG"])

PATIENCE = float(os.environ.get("PATIENCE", "600"))


def hang_once() -> None:
    """Hang, with the engine's lock held, unless a process has hung before."""
    if not HUNG.exists():
        HUNG.touch()
        threading.Event().wait()


class HangingOnce(PackInFlight):
    """A pack before which a process hangs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        hang_once()
        super().__init__(*arguments, **options)


if __name__ == "__main__":
    supervisor.COMMAND = [sys.executable, "-m", "tests.support.hanging_worker"]
    liveness.LATE_SECONDS, liveness.FROZEN_SECONDS = 3.0, 6.0
    lease.RENEW_SECONDS = lease_renewer.RENEW_SECONDS = 1
    lease_renewer.IDLE_SECONDS = heartbeat.REFUSED_SECONDS = 3.0
    liveness.DEAF_SECONDS = 4.0
    leases.LEASE_SECONDS = 5
    watchdog.DRAIN_SECONDS = 3.0
    engine.CPU_PACK_SECONDS = runner.STORE_SECONDS = PATIENCE
    if sys.argv[1] == "start":
        cli.main()
    engine.PackInFlight = HangingOnce  # type: ignore[misc]
    start_logs("worker")
    process.main()
