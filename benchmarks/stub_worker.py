"""One worker process whose engine answers at once; everything else is a worker's own.

    python -m benchmarks.stub_worker NAME DIM

Broker and store are in the environment, as for a worker (``VIRNUCPRO_BROKER_URL``, ``…_STORE``).
"""

import logging
import os
import socket
import sys

from benchmarks.stubs import InstantEngine, stub_runner, worker_of
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.settings import Settings
from common.store import open_store
from common.wire.celery_app import make_celery
from common.wire.redis_client import connect
from workers.transport.consumer import consume
from workers.transport.guard import Guard, install_guard


def main() -> None:
    settings, source = Settings.read(), ModelSource.parse(f"random:{sys.argv[1]}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker = worker_of(source, f"stub-{os.getpid()}@{socket.gethostname()}")
    ledger = Ledger(connect(settings.broker_url, as_worker=True, wait=True))
    store = open_store(settings.required_store())
    runner = stub_runner(ledger, store, InstantEngine(source, int(sys.argv[2])), worker)
    app = make_celery(settings.broker_url, list(worker.queues), settings.message_keys())
    install_guard(app, Guard(ledger, settings.message_keys(), worker.name))
    runner.renewer.start()
    try:
        consume(app, worker.queues, worker.name, run=runner.run, on_stop=runner.stopping.set)
    finally:
        runner.renewer.stop()


if __name__ == "__main__":
    main()
