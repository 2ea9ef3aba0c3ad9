"""A fleet and its jobs, as the command line, ``--local`` and the Python API use them."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Unpack, cast

from redis.exceptions import RedisError

from common.errors import JobEndedError, UnknownJobError
from common.job.layout import job_prefix
from common.job.manifest import Manifest, find_job
from common.ledger.events import Event
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, OnInstability, Progress
from common.ledger.workers import WorkerInfo
from common.local.fleet import LocalFleet, local_fleet
from common.rungs import PrecisionChoice, Rung, first_rung
from common.settings import Settings
from common.store import Store, open_store
from common.wire.messages import Instability
from common.wire.redis_client import connect
from producer.input.records import Input, as_source
from producer.output.fetch import Fetched, fetch
from producer.output.verify import verify
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import open_job
from producer.scheduling.publisher import Publisher, publisher_of
from producer.scheduling.retry import quarantined_rows, retry_quarantined
from producer.scheduling.waiting import Look, wait
from producer.submission.request import DEFAULT_MODEL, Options, Request, make_request
from producer.submission.submit import (
    Hardware,
    OnStaged,
    Submission,
    queue_of_request,
    submit,
    worker_warnings,
)


class Fleet:
    """The workers, the Redis and the store that the settings name.

    Nothing is connected to before it is needed: fetching needs the store alone, listing jobs Redis
    alone.
    """

    def __init__(self, settings: Settings | None = None, machine: LocalFleet | None = None) -> None:
        """Name a fleet.

        Args:
            settings: None: those of the environment (``VIRNUCPRO_BROKER_URL``, …).
            machine: the processes of a fleet that lives on this machine only.
        """
        self.settings = settings or Settings.read()
        self.machine = machine

    @classmethod
    def open(
        cls, *, broker: str | None = None, store: str | None = None, high_water: int | None = None
    ) -> "Fleet":
        """Return the fleet of the environment, with what is given here taking precedence."""
        return cls(Settings.read(broker=broker, store=store, high_water=high_water))

    @classmethod
    @contextmanager
    def local(
        cls,
        *,
        store: str | Path | None = None,
        model: str | None = None,
        precision: PrecisionChoice = "auto",
        gpus: str = "all",
        folder: Path | None = None,
    ) -> Iterator["Fleet"]:
        """Run a fleet on this machine until the block ends: a Redis, and workers.

        Args:
            store: where the jobs' objects stay; None: a temporary folder.
            model: the model whose worker starts at once; others start with their first job.
            precision: that worker's precision.
            gpus: ``all``, ``none`` for the CPU, or numbers such as ``0,1``.
            folder: where logs go; None: a temporary folder.

        Raises:
            UserError: a part is not installed, or Redis does not start.
        """
        with ExitStack() as stack:
            if folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="virnucpro-")
                folder = Path(stack.enter_context(temporary))
            store_url = open_store(str(store or folder / "store")).url
            machine = stack.enter_context(local_fleet(folder, store_url, gpus=gpus))
            if model is not None:
                machine.start_worker(model, precision)
            yield cls(Settings.read(broker=machine.broker_url, store=store_url), machine)

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings.required_store())

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(connect(self.settings.broker_url))

    @cached_property
    def publisher(self) -> Publisher:
        return publisher_of(self.settings, self.ledger)

    def connect(self) -> None:
        """Open the store and connect to Redis, to learn before any work that one is missing.

        Raises:
            UserError: no store is named, or Redis does not answer.
        """
        _ = self.store, self.ledger

    def submit(
        self,
        source: Input,
        *,
        model: str = DEFAULT_MODEL,
        batch_tokens: int | None = None,
        on_staged: OnStaged = lambda _records, _batches: None,
        **options: Unpack[Options],
    ) -> "Job":
        """Queue sequences for embedding; the same input and options resume their job.

        What may make the result another than was meant is a Python warning.

        Args:
            source: a FASTA file (plain, gz, bz2, xz, zst), ``s3://bucket/key``, or records: a
                mapping of ids to sequences, or pairs of them.
            model: a name, a folder with weights, or ``random:NAME``.
            batch_tokens: tokens in a batch; None: about a second's work.
            on_staged: receives the records and batches staged so far.
            options: as ``producer submit`` has them; see ``Options``.

        Raises:
            InputError: a record that cannot be embedded, with its place.
            UserError: bad options, no Redis, or a store that cannot be written.
        """
        with as_source(source) as opened:
            request = make_request(opened, model, **options)
            submission = self.enqueue(request, batch_tokens=batch_tokens, on_staged=on_staged)
        for text in submission.warnings:
            warnings.warn(text, stacklevel=2)
        return Job(self, submission.job)

    def enqueue(
        self,
        request: Request,
        *,
        batch_tokens: int | None = None,
        on_staged: OnStaged = lambda _records, _batches: None,
    ) -> Submission:
        """Queue what a request asks for; see ``submit``."""
        self.connect()
        if self.machine is not None:
            self.machine.start_worker(request.model.text, precision_of(request.rung))
            return self._enqueue(request, self._hardware_here(), batch_tokens, on_staged)
        workers = self.workers()
        queue = queue_of_request(request)
        hardware = Hardware.of_fleet([worker for worker in workers if queue in worker.queues])
        submission = self._enqueue(request, hardware, batch_tokens, on_staged)
        more = worker_warnings(self.ledger, submission.job, request, workers)
        return submission.with_warnings(more)

    def _enqueue(
        self, request: Request, hardware: Hardware, tokens: int | None, on_staged: OnStaged
    ) -> Submission:
        return submit(
            request,
            self.store,
            self.ledger,
            self.publisher,
            hardware=hardware,
            tokens=tokens,
            on_staged=on_staged,
        )

    def _hardware_here(self) -> Hardware:
        assert self.machine is not None
        gpus = self.machine.used_gpus()
        return Hardware(on_gpu=bool(gpus), workers=max(1, len(gpus)))

    def job(self, name: str) -> "Job":
        """Return the job of this name; the first use of it tells whether it exists."""
        return Job(self, name)

    def jobs(self) -> list["Job"]:
        """Return the jobs that Redis knows, newest first."""
        return [Job(self, name) for name in self.ledger.jobs.names()]

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are running."""
        return self.ledger.workers.all()


def precision_of(rung: Rung) -> PrecisionChoice:
    """Return the ``--precision`` of a worker that serves jobs beginning at a rung."""
    if rung is first_rung("auto"):
        return "auto"
    return cast(PrecisionChoice, rung.value)


class Job:
    """One submitted job."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name

    def __repr__(self) -> str:
        return f"Job({self.name!r})"

    @cached_property
    def manifest(self) -> Manifest:
        """What the job is, from the store.

        Raises:
            UnknownJobError: the store has no such job.
        """
        store = self.fleet.store
        manifest = find_job(store, self.name)
        if manifest is None:
            raise UnknownJobError(
                f"{store.url} has no job {self.name!r}. Is this the store it was submitted to?"
            )
        return manifest

    def status(self) -> Progress:
        """Return the job's counters at this moment.

        Raises:
            UnknownJobError: Redis does not know the job.
        """
        progress = self.fleet.ledger.jobs.progress(self.name)
        if progress is None:
            raise UnknownJobError(
                f"Redis knows no job {self.name!r}; producer jobs lists those it knows."
            )
        return progress

    def wait(
        self,
        *,
        progress: bool = False,
        timeout: float | None = None,
        on_look: Callable[[Look], None] = lambda _look: None,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> Progress:
        """Keep the job going until it is finished; return its last progress.

        A finished job may have batches that failed: see the progress, and ``retry``.

        Args:
            progress: show a bar on a terminal and in a notebook, lines elsewhere.
            timeout: seconds to wait at most; None: without limit.
            on_look: receives what each look at the job found, twice a second.
            on_event: receives what was lost and queued again.

        Raises:
            JobEndedError: the job was cancelled or stopped.
            UnknownJobError: neither Redis nor the store knows the job.
            WaitTimeoutError: the job did not finish in time.
        """
        if progress:
            from producer.terminal.watch import display  # Rich is loaded only to show something

            with display(self.name) as show:
                return self.wait(timeout=timeout, on_look=show, on_event=on_event)
        fleet = self.fleet
        keeper = Keeper(
            fleet.store, fleet.ledger, fleet.publisher, on_event=on_event, only=self.name
        )
        try:
            return wait(
                fleet.ledger,
                self.name,
                keep=keeper.step,
                check=lambda: None if fleet.machine is None else fleet.machine.check(),
                on_look=on_look,
                timeout=timeout,
            )
        finally:
            with suppress(RedisError):
                keeper.stop()

    def cancel(self) -> None:
        """Stop the job: none of its batches are handed out any more; ``resume`` undoes it.

        Raises:
            JobEndedError: the job is finished.
            UnknownJobError: Redis does not know the job.
        """
        self.status()
        if self.fleet.ledger.jobs.cancel(self.name) is JobState.FINISHED:
            raise JobEndedError(f"Job {self.name} is finished: there is nothing to cancel.")

    def resume(self) -> int:
        """Queue again what is not done, whatever ended the job.

        Returns:
            Batches that are neither done nor running.
        """
        fleet = self.fleet
        policy: OnInstability = (
            "fail" if fleet.ledger.jobs.stops_at_instability(self.name) else "retry"
        )
        return open_job(fleet.store, fleet.ledger, fleet.publisher, self.manifest, policy)

    def retry(self, *, quarantined: bool = False) -> int:
        """Try again what failed, without the input.

        Args:
            quarantined: sequences without an embedding too, at the next rung.

        Returns:
            Batches that are neither done nor running.

        Raises:
            JobEndedError: the job was cancelled or stopped.
        """
        fleet, manifest = self.fleet, self.manifest
        progress = fleet.ledger.jobs.progress(self.name)
        if progress is not None and progress.state in (JobState.CANCELLED, JobState.STOPPED):
            raise JobEndedError(
                f"Job {self.name} is {progress.state}. To resume it, submit the same input again."
            )
        left = self.resume()
        if quarantined:
            left += retry_quarantined(fleet.store, fleet.ledger, fleet.publisher, manifest)
        return left

    def quarantined(self) -> list[Instability]:
        """Return the sequences without an embedding, and why, in input order."""
        return quarantined_rows(self.fleet.store, self.manifest)

    def fetch(self, path: str | Path) -> Fetched:
        """Write the finished job's embeddings to one HDF5 file.

        Raises:
            UserError: batches are missing, or the file cannot be written.
        """
        return fetch(self.fleet.store, self.manifest, Path(path))

    def verify(self) -> list[str]:
        """Read all shards of the finished job; return a text for each that is damaged."""
        return verify(self.fleet.store, self.manifest)

    def delete(self) -> None:
        """Delete the job from Redis and from the store, running or not."""
        self.fleet.ledger.jobs.cancel(self.name)
        self.fleet.ledger.jobs.forget(self.name)
        self.fleet.store.delete(job_prefix(self.name))
