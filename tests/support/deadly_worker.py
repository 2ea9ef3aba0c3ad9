"""``worker start`` whose processes are killed whenever they compute the record DEADLY.

Leases, and pauses before the next process begins, are shorter than in earnest.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from common import ledger
from common.batchfile import Record
from workers import cli, heartbeat, process, supervisor
from workers.engine import Engine, Outcome

DEADLY = os.environ["DEADLY"]

embed_records = Engine.embed


def die_or_embed(self: Engine, records: Sequence[Record], *rest: Any, **more: Any) -> Outcome:
    if any(record.id == DEADLY for record in records):
        os.kill(os.getpid(), signal.SIGKILL)
    return embed_records(self, records, *rest, **more)


if __name__ == "__main__":
    supervisor.COMMAND = [sys.executable, "-m", "tests.support.deadly_worker"]
    supervisor.LONGEST_PAUSE = 1.0
    heartbeat.RENEW_SECONDS, ledger.LEASE_SECONDS = 1, 3
    if sys.argv[1] == "start":
        cli.main()
    Engine.embed = die_or_embed  # type: ignore[method-assign]
    process.main()
