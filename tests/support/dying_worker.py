"""A worker process that is killed after a result was counted, before its retry is queued."""

import os
import signal

from common.logs import start_logs
from workers.batches.runner import BatchRunner
from workers.process import worker as process
from workers.transport import consumer


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    consumer.THREADS = 1  # one batch at a time, so that no other is running when the process dies
    BatchRunner._publish_retry = die  # type: ignore[method-assign]
    start_logs("worker")
    process.main()
