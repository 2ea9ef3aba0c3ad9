"""A fleet: submitting to it, and finding its jobs."""

import tempfile
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack, cast

from common.advice import how_to
from common.errors import ProcessEndedError, UserError
from common.job.joint import is_joint
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.local.fleet import LocalFleet, local_fleet
from common.model_source import ModelSource
from common.paths import user_path
from common.rungs import PrecisionChoice, Rung, first_rung
from common.settings import Settings
from common.store import Store, open_store
from common.wire.address import without_password
from common.wire.redis_client import connect
from producer.fleet.job import Job
from producer.fleet.joint import JointJob
from producer.scheduling.publisher import Publisher, publisher_of
from producer.submission.new_store import make_store
from producer.submission.notes import input_notes
from producer.submission.records import Input, as_source
from producer.submission.request import (
    DEFAULT_MODEL,
    Options,
    Request,
    make_request,
    queue_of_request,
)
from producer.submission.submit import Check, Hardware, OnStaged, Submission, submit


class Fleet:
    """The workers, the Redis and the store that are named here or by the environment.

    Nothing is connected to before it is needed: fetching needs the store alone, listing jobs Redis
    alone.
    """

    def __init__(
        self,
        *,
        broker: str | None = None,
        store: str | Path | None = None,
        high_water: int | None = None,
    ) -> None:
        """Name a fleet; ``Fleet.local`` starts one.

        Args:
            broker: URL of its Redis; None: ``VIRNUCPRO_BROKER_URL``, or this machine's.
            store: a folder or ``s3://bucket/prefix``; None: ``VIRNUCPRO_STORE``.
            high_water: messages that may wait in its queues; None: ``VIRNUCPRO_HIGH_WATER``.

        Raises:
            UserError: a setting is not of the right kind.
        """
        store = None if store is None else str(store)
        self.settings = Settings.read(broker=broker, store=store, high_water=high_water)
        #: The processes of a fleet that lives on this machine only.
        self.machine: LocalFleet | None = None
        self._end_processes: Callable[[], object] = lambda: None
        self._closed = False

    @property
    def is_local(self) -> bool:
        """Whether this is a fleet of this machine alone, which starts its own workers."""
        return self.machine is not None

    @cached_property
    def store(self) -> Store:
        self._check_open()
        return open_store(self.settings.required_store())

    @cached_property
    def ledger(self) -> Ledger:
        self._check_open()
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

    def make_store(self) -> bool:
        """Make the store, unless it is there, as a first submit would; return whether it is new.

        Raises:
            UserError: no store is named, it cannot be written, one with open jobs was here and is
                not, or Redis does not answer.
        """
        self.connect()
        return make_store(self.store, self.ledger)

    def check(self, job: str, model: str) -> None:
        """Raise if a process on this machine that a job of this model needs has ended.

        Raises:
            ProcessEndedError: which, with the end of the worker's log and what to do.
        """
        self._check_open()
        if self.machine is not None:
            try:
                self.machine.check(ModelSource.parse(model).text)
            except ProcessEndedError as error:
                raise ProcessEndedError(
                    f"{error}\nTo go on with the job: {how_to('resume', job)}"
                ) from error

    def start_worker(
        self, model: str, rung: Rung, precision: PrecisionChoice | None = None
    ) -> None:
        """Start the worker that jobs of a model need, if this is a fleet of one machine.

        Args:
            precision: of a worker that is not running; None: the usual one of the rung.
        """
        if self.machine is not None:
            chosen = precision or precision_of(rung)
            self.machine.start_worker(ModelSource.parse(model).text, chosen)

    def stop_workers(self, model: str) -> None:
        """Stop the workers of a model, if this is a fleet of one machine."""
        if self.machine is not None:
            self.machine.stop_workers(ModelSource.parse(model).text)

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("This fleet of one machine is closed: start another one.")

    @classmethod
    def local(
        cls,
        *,
        store: str | Path | None = None,
        model: str | Path | None = None,
        precision: PrecisionChoice = "auto",
        gpus: str = "all",
        folder: str | Path | None = None,
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
                folder = stack.enter_context(temporary)
            folder = user_path(folder)
            opened = open_store(str(store or folder / "store"))
            opened.check_writable()
            machine = stack.enter_context(local_fleet(folder, opened.url, gpus=gpus))
            if model is not None:
                machine.start_worker(ModelSource.parse(model).text, precision)
            fleet = cls(broker=machine.broker_url, store=opened.url)
            fleet.machine = machine
            # Called by close, or when the fleet is dropped, or when Python ends.
            fleet._end_processes = weakref.finalize(fleet, stack.pop_all().close)
            return fleet

    def __repr__(self) -> str:
        where = "on this machine, " if self.machine is not None else ""
        broker = without_password(self.settings.broker_url)
        return f"Fleet({where}{broker}, store {self.settings.store})"

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
        if self.machine is None:
            return
        self._end_processes()
        self._closed = True
        for name in ("store", "ledger", "publisher"):
            vars(self).pop(name, None)

    def submit(
        self,
        source: Input,
        *,
        model: str | Path = DEFAULT_MODEL,
        batch_tokens: int | None = None,
        on_staged: OnStaged = lambda _records, _batches: None,
        **options: Unpack[Options],
    ) -> Job:
        """Queue sequences for embedding; the same input and options resume their job.

        A Python warning names what was changed in the records, and what may make the result another
        than was meant. Truncation is one too, unless ``long`` asks for it.

        Args:
            source: a file, a folder, a pattern, ``s3://bucket/key``, a list of ``Path``, all as
                ``docs/inputs.md`` describes them, or sequences: a list, ``{id: sequence}``, pairs
                of id and sequence, or Biopython's records.
            model: a name, also with ``@REVISION``, a folder with weights, ``s3://bucket/folder``,
                or ``random:NAME``.
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
        truncated_unasked = options.get("long") is None and request.form.overlap is None
        notes = input_notes(submission.manifest, with_long=truncated_unasked)
        for text in (*notes, *submission.warnings):
            warnings.warn(text, stacklevel=2)
        return Job(self, submission.job)

    def enqueue(
        self,
        request: Request,
        *,
        batch_tokens: int | None = None,
        on_staged: OnStaged = lambda _records, _batches: None,
        check: Check = lambda _manifest: None,
    ) -> Submission:
        """Queue what a request asks for; see ``submit``."""
        if batch_tokens is not None and not (isinstance(batch_tokens, int) and batch_tokens > 0):
            raise UserError(f"batch_tokens: {batch_tokens!r} is not a whole number above 0.")
        self.connect()
        queue_up = partial(
            submit,
            request,
            self.store,
            self.ledger,
            self.publisher,
            tokens=batch_tokens,
            on_staged=on_staged,
            check=check,
        )
        if self.machine is not None:
            self.start_worker(request.model.text, request.rung)
            return queue_up(hardware=self._hardware_here())
        queue = queue_of_request(request)
        serving = [worker for worker in self.workers() if queue in worker.queues]
        submission = queue_up(
            hardware=Hardware.of_fleet(serving, request.rung),
            weights={worker.weights for worker in serving if worker.weights is not None},
        )
        reason = self.job(submission.job).why_waiting()
        return submission.with_warnings([f"the job waits: {reason}"] if reason else [])

    def _hardware_here(self) -> Hardware:
        assert self.machine is not None
        gpus = self.machine.used_gpus()
        return Hardware(on_gpu=bool(gpus), workers=max(1, len(gpus)))

    def job(self, name: str) -> Job:
        """Return the job of this name; the first use of it tells whether it exists."""
        return Job(self, name)

    def jobs_named(self, name: str) -> list[Job]:
        """Return the job of this name; of a joint job, those of its models.

        Raises:
            UnknownJobError: the store has no joint job of this name.
        """
        return JointJob(self, name).jobs if is_joint(name) else [Job(self, name)]

    def jobs(self) -> list[Job]:
        """Return the jobs that Redis knows, newest first."""
        return [Job(self, name) for name in self.ledger.jobs.names()]

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are running."""
        return self.ledger.workers.all()


def precision_of(rung: Rung) -> PrecisionChoice:
    """Return the precision of a worker that serves jobs beginning at a rung."""
    if rung is first_rung("auto"):
        return "auto"
    return cast(PrecisionChoice, rung.value)
