"""``worker start`` whose processes are killed whenever they compute the record DEADLY.

Leases, and pauses before a restart, are shorter than in production.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from common.job.records import Record
from common.ledger import leases
from common.logs import start_logs
from workers import cli
from workers.batches import lease, lease_renewer
from workers.engine.engine import Engine, Outcome
from workers.process import supervisor
from workers.process import worker as process

DEADLY = os.environ["DEADLY"]

embed_records = Engine.embed


def die_or_embed(self: Engine, records: Sequence[Record], *rest: Any, **more: Any) -> Outcome:
    if any(record.id == DEADLY for record in records):
        os.kill(os.getpid(), signal.SIGKILL)
    return embed_records(self, records, *rest, **more)


if __name__ == "__main__":
    supervisor.COMMAND = [sys.executable, "-m", "tests.support.deadly_worker"]
    supervisor.LONGEST_PAUSE = 1.0
    lease.RENEW_SECONDS = lease_renewer.RENEW_SECONDS = 1
    leases.LEASE_SECONDS = 3
    if sys.argv[1] == "start":
        cli.main()
    Engine.embed = die_or_embed  # type: ignore[method-assign]
    start_logs("worker")
    process.main()
