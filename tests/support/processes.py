"""The project's commands as a user runs them, in separate processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import psutil
from redis import Redis

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.local.embedded_redis import redis_server
from common.local.processes import start_dependent, stop
from tests.support import warm
from tests.support.forks import read_early

START_SECONDS = 90

#: Seconds that a command may take.
COMMAND_SECONDS = 240

T = TypeVar("T")

#: A process of this project, in an interpreter of its own or forked.
Running: TypeAlias = "subprocess.Popen[bytes] | warm.Process"


@dataclass(frozen=True)
class Worker:
    """``worker start`` on the CPU: a supervisor, and the process that computes."""

    supervisor: Running
    log: Path

    @property
    def process(self) -> psutil.Process:
        """The process that computes at this moment."""
        [process] = psutil.Process(self.supervisor.pid).children()
        return process

    def kill(self) -> None:
        """Kill both at once, as if their host died."""
        process = self.process
        self.supervisor.send_signal(signal.SIGSTOP)  # so that it does not start another process
        process.kill()
        self.supervisor.kill()
        self.supervisor.wait()


@dataclass(frozen=True)
class Fleet:
    """A broker and a store, and the environment that names them."""

    broker_url: str
    store_url: str
    environment: Mapping[str, str]

    @property
    def ledger(self) -> Ledger:
        return Ledger(Redis.from_url(self.broker_url, decode_responses=True))

    def producer(self, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        return run_producer(*arguments, environment=self.environment, **options)

    @contextmanager
    def workers(
        self, model: object, folder: Path, *options: str, count: int = 1
    ) -> Iterator[list[Path]]:
        """Run workers on the CPU until the block ends; yields their logs once all are ready."""
        with self.running_workers(model, folder, *options, count=count) as workers:
            yield [worker.log for worker in workers]

    @contextmanager
    def running_workers(
        self, model: object, folder: Path, *options: str, count: int = 1, **more: Any
    ) -> Iterator[list[Worker]]:
        """Run workers as in ``workers``; yield their processes, so that a test can kill them."""
        with ExitStack() as stack:
            workers = [
                stack.enter_context(running_worker(model, log, self.environment, *options, **more))
                for log in (folder / f"worker-{number}.log" for number in range(count))
            ]
            wait_until(
                lambda: sum(map(is_ready, self.ledger.workers.all())) >= count, START_SECONDS
            )
            yield workers


def is_ready(worker: WorkerInfo) -> bool:
    return worker.weights is not None


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of the fleet or of S3."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIRNUCPRO_", "AWS_"))}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "NO_PROXY": "127.0.0.1", "COLUMNS": "200", **more}


def run_producer(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run ``producer`` to its end; never raises for its exit code."""
    return run("producer.cli", *arguments, **options)


def run(
    module: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    cwd: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    words = [str(argument) for argument in arguments]
    variables = clean_environment() if environment is None else environment
    if module in warm.COMMANDS and len(stdin or b"") <= warm.PIPE_BYTES:
        done = warm.run(module, words, variables, cwd, COMMAND_SECONDS, stdin)
    else:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env=variables,
            input=stdin or b"",
            capture_output=True,
            cwd=cwd,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def start_command(
    module: str, *arguments: object, environment: Mapping[str, str], output: IO[bytes]
) -> Running:
    """Start a command that runs on, in a session of its own; it does not outlive this process.

    It is a fork, unless the interpreter or a library would find another environment.
    """
    words = [str(argument) for argument in arguments]
    if read_early(environment) != read_early(clean_environment()):
        return start_anew(module, *words, environment=environment, output=output)
    with Path(os.devnull).open("rb") as null:
        files = [null.fileno(), output.fileno(), output.fileno()]
        return warm.start(module, words, environment, files=files, in_session=True)


def start_anew(
    module: str, *words: str, environment: Mapping[str, str], output: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Start a command as ``start_command`` does, in a new interpreter."""
    return start_dependent([sys.executable, "-m", module, *words], env=environment, output=output)


@contextmanager
def running_worker(
    model: object,
    log: Path,
    environment: Mapping[str, str],
    *options: str,
    start: Callable[..., Running] = start_command,
) -> Iterator[Worker]:
    words = ["start", "--model", str(model), "--gpus=none", *options]
    with log.open("wb") as output:
        process = start("workers.cli", *words, environment=environment, output=output)
    try:
        yield Worker(process, log)
    finally:
        stop(process, 40)


@contextmanager
def running_keeper(log: Path, environment: Mapping[str, str], *options: str) -> Iterator[Running]:
    """Run a keeper until the block ends, and have it end well."""
    words = ["keeper", *(options or ("--metrics", ""))]
    with log.open("wb") as output:
        process = start_command("producer.cli", *words, environment=environment, output=output)
    try:
        wait_until(lambda: b"Keeping the jobs of" in log.read_bytes(), START_SECONDS)
        yield process
    finally:
        code = stop(process, 40)
    assert code == 0, log.read_text()


@contextmanager
def running_fleet(folder: Path, store_url: str, **more: str) -> Iterator[Fleet]:
    """A Redis of its own, and the environment of a fleet on it."""
    socket = folder / "redis.sock"
    with redis_server(socket):
        yield fleet_at(f"unix://{socket}?db=0", store_url, **more)


def fleet_at(broker_url: str, store_url: str, **more: str) -> Fleet:
    variables = {"VIRNUCPRO_BROKER_URL": broker_url, "VIRNUCPRO_STORE": store_url, **more}
    return Fleet(broker_url, store_url, clean_environment(**variables))


def wait_until(condition: Callable[[], T], seconds: float) -> T:
    """Wait until a condition is true; return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
        time.sleep(0.1)
    return value
