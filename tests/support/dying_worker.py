"""A worker process that is killed after a result was counted, before its retry is queued."""

import os
import signal

from workers import process
from workers.tasks import BatchRunner


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    BatchRunner._pass_on = die  # type: ignore[method-assign]
    process.main()
