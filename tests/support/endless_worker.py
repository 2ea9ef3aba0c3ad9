"""A worker whose batches never end: ``URL QUEUE BATCHES SECONDS``.

``SECONDS`` after it has taken ``BATCHES`` it writes how many it has, and the seconds since it last
looked for messages, and ends.
"""

import os
import sys
import threading
import time

from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery
from common.wire.messages import Batch
from common.wire.redis_client import connect
from common.wire.signing import MessageKeys
from workers.transport.consumer import consume
from workers.transport.guard import Guard, install_guard


def main(url: str, queue: str, batches: int, seconds: float) -> None:
    app, taken = make_celery(url, [queue]), []
    guard = Guard(Ledger(connect(url)), MessageKeys(), "w")
    install_guard(app, guard)
    guard.expect_turns()

    def run(batch: Batch) -> None:
        taken.append(batch)
        threading.Event().wait()

    def end() -> None:
        while len(taken) < batches:
            time.sleep(0.05)
        time.sleep(seconds)
        os.write(1, f"{len(taken)} {guard.idle_seconds()}".encode())
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    consume(app, [queue], "w", run=run, on_stop=lambda: None)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
