"""A job that may be under way: waiting for it, and having its embeddings meanwhile."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError

from common.advice import how_to
from common.embeddings.arrays import Array
from common.errors import NotReadyError, UnknownJobError, UserError
from common.job.output_form import Include
from common.ledger.events import Event
from common.ledger.progress import Progress
from common.store import ObjectNotFoundError, StoreError
from producer.fleet.following import FollowedFile
from producer.fleet.output import Output
from producer.fleet.stored_job import StoredJob
from producer.output.fetch import Fetched, JobRows
from producer.output.followed import Pace, final_shards
from producer.output.job_embeddings import BatchStream
from producer.output.partial_rows import PartialRows
from producer.output.wanted import Wanted, make_wanted
from producer.scheduling.keeper import Keeper
from producer.scheduling.observation import Observation
from producer.scheduling.waiting import LOCAL_POLL_SECONDS, POLL_SECONDS, observations, wait


class RunningJob(StoredJob):
    """A submitted job, which Redis may know."""

    def wait(
        self,
        *,
        progress: bool = False,
        timeout: float | None = None,
        on_progress: Callable[[Observation], None] = lambda _observation: None,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> Progress:
        """Keep the job going until it is finished; return its last progress.

        A finished job may have batches that failed: see the progress, and ``retry``.

        Args:
            progress: show a bar on a terminal and in a notebook, lines elsewhere.
            timeout: seconds to wait at most; None: without limit.
            on_progress: receives each observation of the job, at least two per second.
            on_event: receives what was lost and queued again.

        Raises:
            JobEndedError: the job was cancelled or stopped.
            UnknownJobError: the store has no such job, or no keeper restores it.
            WaitTimeoutError: the job did not finish in time.
        """
        model = self.manifest.model  # a job that does not exist is an error at once
        if progress:
            from producer.terminal.watch import display  # Rich is loaded only to show something

            with display(self.name) as show:
                return self.wait(timeout=timeout, on_progress=show, on_event=on_event)
        with self._keeping(on_event) as keep:
            return wait(
                self.fleet.ledger,
                self.name,
                keep=keep,
                check=partial(self.fleet.check, self.name, model),
                on_progress=on_progress,
                poll_seconds=self._poll_seconds,
                timeout=timeout,
                is_local=self.fleet.is_local,
            )

    def stream(self, *, poll_seconds: float = POLL_SECONDS) -> Iterator[tuple[list[str], Array]]:
        """Keep the job going; yield each batch's ids ``[n]`` and mean vectors as it completes.

            for ids, vectors in job.stream():
                index.add(ids, vectors)  # float32 [n, *W]

        Each batch comes once, with the final numbers of all its rows, in the order of completion;
        rows that no rung could embed are NaN. Batches that are done already come first.

        Args:
            poll_seconds: seconds between two observations of the job.

        Raises:
            JobEndedError: the job was cancelled or stopped.
            UnknownJobError: the store has no such job, or no keeper restores it.
            UserError: at the end, if batches failed; or the job keeps no mean vectors.
        """
        fleet = self.fleet
        batches = BatchStream(fleet.store, fleet.ledger, self.manifest)
        with closing(batches), self._keeping() as keep:
            for seen in observations(
                fleet.ledger,
                self.name,
                keep=keep,
                check=partial(fleet.check, self.name, self.manifest.model),
                poll_seconds=poll_seconds,
                is_local=fleet.is_local,
            ):
                try:
                    for batch in batches.completed():
                        yield batch
                        keep()  # many batches may be done already
                    if seen.progress is not None and seen.progress.finished:
                        batches.check_all_came()
                        return
                except ObjectNotFoundError:
                    raise
                except (RedisError, StoreError):
                    continue  # they may be restarting: the next look waits for them

    @contextmanager
    def _keeping(
        self, on_event: Callable[[Event], None] = lambda _event: None
    ) -> Iterator[Callable[[], None]]:
        """Yield the function that keeps the job going, to be called now and then."""
        fleet = self.fleet
        keeper = Keeper(
            fleet.store, fleet.ledger, fleet.publisher, on_event=on_event, only=self.name
        )
        try:
            yield keeper.step
        finally:
            with suppress(RedisError):
                keeper.stop()

    def fetch(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        layout: str | None = None,
        dtype: str | None = None,
        include: Include | Sequence[Include] = (),
        ids: str | Iterable[str] | None = None,
        follow: bool = False,
        partial: bool = False,
    ) -> Fetched:
        """Write the embeddings of the job, which is finished, to one file.

            job.fetch("e.h5")
            job.fetch("e.parquet", dtype="float16", ids=["P69905", "P68871"])
            job.fetch("e.h5", follow=True)

        Args:
            path: the file, or the URL of an object, ``s3://bucket/key.h5``. An earlier one of this
                job is replaced. Its suffix chooses the layout.
            overwrite: replace any other file too.
            layout: the layout, if the suffix does not tell, such as ``"uniprot"`` or ``"esm"``.
            dtype: ``"float16"`` or ``"float32"``; None: as computed.
            include: vectors to write; empty: all that were computed.
            ids: write only the rows with these ids; None: all.
            follow: keep the job going until it is finished, and write its batches meanwhile.
            partial: write only the rows of the batches that are done now; the file's attribute
                ``partial`` says how many these are.

        Raises:
            JobEndedError: ``follow``: the job was cancelled or stopped.
            NotReadyError: batches are missing.
            UserError: the file cannot be written, or another one is there.
        """
        if follow and partial:
            raise UserError(
                "follow and partial: a file is whole or partial. Leave out one of them."
            )
        wanted = make_wanted(layout=layout, dtype=dtype, include=include, ids=ids, partial=partial)
        output = self.output_file(path, overwrite=overwrite, wanted=wanted)
        try:
            return self.fetch_to(output)
        except NotReadyError:
            if not follow:
                raise
        with self.following(output) as file:
            self.wait()
            return self.finish(file, output)

    @contextmanager
    def following(self, output: Output) -> Iterator[FollowedFile]:
        """Write a file until the end of the block while the job runs; for ``finish``.

        Raises:
            UserError: it cannot be written.
        """
        output.check()
        fleet, pace = self.fleet, Pace(self._poll_seconds)
        file = FollowedFile(fleet.store, fleet.ledger, self.manifest, output, pace)
        with file.being_written():
            yield file

    def finish(self, file: FollowedFile, output: Output) -> Fetched:
        """Return what was written of the job, which is finished; else write it now."""
        return file.finish() or self.fetch_to(output)

    @property
    def _poll_seconds(self) -> float:
        return LOCAL_POLL_SECONDS if self.fleet.is_local else POLL_SECONDS

    def _rows(self, wanted: Wanted, folder: Path) -> JobRows:
        if not wanted.partial:
            return super()._rows(wanted, folder)
        store, manifest = self.fleet.store, self.manifest
        if self.fleet.ledger.jobs.progress(self.name) is None:
            raise UnknownJobError(
                f"Redis knows no job {self.name!r}, and only it tells which batches are final. To "
                f"have the job restored from its store: {how_to('resume', self.name)}. If it was "
                "finished, fetch it without --partial."
            )
        return PartialRows(store, manifest, final_shards(self.fleet.ledger, manifest), folder)
