"""A fleet: submitting to it, and finding its jobs."""

import tempfile
import warnings
import weakref
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack, cast

from common.ledger.workers import WorkerInfo
from common.local.fleet import LocalFleet, local_fleet
from common.rungs import PrecisionChoice, Rung, first_rung
from common.settings import Settings
from common.store import open_store
from producer.fleet.connections import Connections
from producer.fleet.job import Job
from producer.submission.notes import worker_warnings
from producer.submission.records import Input, as_source
from producer.submission.request import (
    DEFAULT_MODEL,
    Options,
    Request,
    make_request,
    queue_of_request,
)
from producer.submission.submit import (
    Hardware,
    OnStaged,
    Submission,
    submit,
)


class Fleet(Connections):
    """The workers, the Redis and the store that the settings name."""

    def __init__(
        self,
        settings: Settings | None = None,
        machine: LocalFleet | None = None,
        processes: ExitStack | None = None,
    ) -> None:
        """Name a fleet; ``Fleet.local`` starts one.

        Args:
            settings: None: those of the environment (``VIRNUCPRO_BROKER_URL``, …).
            machine: the processes of a fleet that lives on this machine only.
            processes: ends them when it is closed.
        """
        super().__init__(settings, machine)
        # Called by close, or when the fleet is dropped, or when Python ends, whichever comes first.
        self._end_processes = weakref.finalize(self, (processes or ExitStack()).close)

    @classmethod
    def open(
        cls, *, broker: str | None = None, store: str | None = None, high_water: int | None = None
    ) -> "Fleet":
        """Return the fleet of the environment, with what is given here taking precedence."""
        return cls(Settings.read(broker=broker, store=store, high_water=high_water))

    @classmethod
    def local(
        cls,
        *,
        store: str | Path | None = None,
        model: str | None = None,
        precision: PrecisionChoice = "auto",
        gpus: str = "all",
        folder: Path | None = None,
    ) -> "Fleet":
        """Start a fleet on this machine: a Redis, and workers with the first job of each model.

            with Fleet.local() as fleet:
                job = fleet.submit({"P1": "MKTAYIAKQR"})

        Its processes end with the block. Where there is no block, as in a notebook, they end with
        ``fleet.close()``, or with Python.

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
            settings = Settings.read(broker=machine.broker_url, store=store_url)
            return cls(settings, machine, stack.pop_all())

    def __repr__(self) -> str:
        where = "on this machine, " if self.machine is not None else ""
        return f"Fleet({where}{self.settings.broker_url}, store {self.settings.store})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes of a fleet on this machine; another fleet goes on."""
        self._end_processes()

    def submit(
        self,
        source: Input,
        *,
        model: str = DEFAULT_MODEL,
        batch_tokens: int | None = None,
        on_staged: OnStaged = lambda _records, _batches: None,
        **options: Unpack[Options],
    ) -> Job:
        """Queue sequences for embedding; the same input and options resume their job.

        What may make the result another than was meant is a Python warning.

        Args:
            source: a FASTA file (plain, gz, bz2, xz, zst), ``s3://bucket/key``, or sequences: a
                list, ``{id: sequence}``, or pairs of id and sequence.
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

    def job(self, name: str) -> Job:
        """Return the job of this name; the first use of it tells whether it exists."""
        return Job(self, name)

    def jobs(self) -> list[Job]:
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
