"""One job of a fleet: looking at it, ending it, and having its embeddings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from redis.exceptions import RedisError

from common.advice import how_to
from common.embeddings.arrays import Array
from common.errors import JobEndedError, UnknownJobError
from common.job.manifest import Manifest, find_job
from common.ledger.events import Event
from common.ledger.progress import JobState, OnInstability, Progress
from common.ledger.speed import Speed
from common.model_specs import ModelSource
from common.paths import user_path
from common.store import ObjectNotFoundError, StoreError
from common.wire.messages import JOB_NAME, Instability
from producer.fleet.output_file import OutputFile, sources_of
from producer.output.fetch import Fetched, fetch
from producer.output.job_embeddings import BatchStream, JobEmbeddings
from producer.output.verify import damaged_shards, delete_damaged, verify
from producer.scheduling.deletion import delete_job, has_objects, staged_at
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.job_lock import job_lock
from producer.scheduling.keeper import Keeper
from producer.scheduling.observation import Observation, observe
from producer.scheduling.opening import open_job
from producer.scheduling.retry import quarantined_rows, retry_quarantined
from producer.scheduling.waiting import (
    LOCAL_POLL_SECONDS,
    POLL_SECONDS,
    observations,
    wait,
)
from producer.submission.same_weights import check_same_files

if TYPE_CHECKING:
    from producer.fleet.fleet import Fleet


class Job:
    """One submitted job."""

    def __init__(self, fleet: "Fleet", name: str) -> None:
        """Name a job; the first use of it tells whether it exists.

        Raises:
            UnknownJobError: no job can have this name.
        """
        if not JOB_NAME.fullmatch(name):
            raise UnknownJobError(f"{name!r} is not the name of a job.")
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
                f"Redis knows no job {self.name!r}. If its store has it: "
                f"{how_to('resume', self.name)}"
            )
        return progress

    def why_waiting(self, progress: Progress | None = None) -> str:
        """Return why the job does not go on, and what to do; empty if it does, or has ended.

        Args:
            progress: the job's counters at this moment; None: look them up.

        Raises:
            UnknownJobError: Redis does not know the job.
        """
        progress = progress or self.status()
        found = observe(self.fleet.ledger, progress, Speed(), is_local=self.fleet.is_local)
        return diagnose(found)

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
                poll_seconds=LOCAL_POLL_SECONDS if self.fleet.is_local else POLL_SECONDS,
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
        with self._keeping() as keep:
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

    def embeddings(self) -> JobEmbeddings:
        """Return the finished job's embeddings, read from the store in place.

        Mean vectors are read into memory at once, and stay when the fleet is closed; those of
        residues are read when they are asked for, a batch at a time. For what does not fit into
        memory: ``stream``, or ``fetch`` and ``load``.

        Raises:
            UnknownJobError: the store has no such job.
            UserError: batches are missing, or cannot be read.
        """
        return JobEmbeddings(self.fleet.store, self.manifest)

    def cancel(self) -> None:
        """Stop the job: none of its batches are handed out any more; ``resume`` undoes it.

        Raises:
            JobEndedError: the job is finished.
            UnknownJobError: Redis does not know the job.
        """
        self.status()
        if self.fleet.ledger.jobs.cancel(self.name) is JobState.FINISHED:
            raise JobEndedError(f"Job {self.name} is finished: there is nothing to cancel.")

    def resume(self, *, on_instability: OnInstability | None = None) -> int:
        """Queue again what is not done, whatever ended the job, without the input.

        Args:
            on_instability: what to do with an embedding that is not finite; None: as before.

        Returns:
            Batches that are neither done nor running.

        Raises:
            UnknownJobError: the store has no such job.
            UserError: on a fleet of one machine: the model's files have changed since.
        """
        fleet, manifest = self.fleet, self.manifest
        if fleet.is_local:
            check_same_files(manifest)
        if on_instability is None:
            stops = fleet.ledger.jobs.stops_at_instability(self.name)
            on_instability = "fail" if stops else "retry"
        fleet.start_worker(manifest.model, manifest.rung)
        return open_job(fleet.store, fleet.ledger, fleet.publisher, manifest, on_instability)

    def retry(self, *, quarantined: bool = False, damaged: bool = False) -> int:
        """Try again what failed, without the input.

        Args:
            quarantined: sequences without an embedding too, at the next rung.
            damaged: batches of which a shard cannot be used too; all are read to find them.

        Returns:
            Batches that are neither done nor running.

        Raises:
            JobEndedError: the job was cancelled or stopped.
        """
        fleet, manifest = self.fleet, self.manifest
        progress = fleet.ledger.jobs.progress(self.name)
        if progress is not None and progress.state in (JobState.CANCELLED, JobState.STOPPED):
            raise JobEndedError(
                f"Job {self.name} is {progress.state}. To resume it: {how_to('resume', self.name)}"
            )
        left = self.resume()
        if damaged and self._delete_damaged():
            left = self.resume()
        if quarantined:
            left += retry_quarantined(fleet.store, fleet.ledger, fleet.publisher, manifest)
        return left

    def _delete_damaged(self) -> bool:
        """Delete the shards that cannot be used of batches that are done; return if there are any.

        They are looked for without the job's lock, which lasts a minute.
        """
        store, manifest, ledger = self.fleet.store, self.manifest, self.fleet.ledger
        settled = list(ledger.batches.settled(manifest, np.zeros(manifest.batches, np.bool_)))
        found = [batch for batch, _ in damaged_shards(store, manifest, settled)]
        if found:
            with job_lock(ledger, self.name) as hold:
                delete_damaged(store, manifest, found, hold)
        return bool(found)

    def quarantined(self) -> list[Instability]:
        """Return the sequences without an embedding, and why, in input order."""
        return quarantined_rows(self.fleet.store, self.manifest)

    def fetch(self, path: str | Path, *, overwrite: bool = False) -> Fetched:
        """Write the finished job's embeddings to one HDF5 file.

        Args:
            path: the file, .h5 or .hdf5. An earlier one of this job is replaced.
            overwrite: replace any other file too.

        Raises:
            UserError: batches are missing, the file cannot be written, or another one is there.
        """
        return self.fetch_to(self.output_file(path, overwrite=overwrite))

    def output_file(self, path: str | Path, *, overwrite: bool = False) -> OutputFile:
        """Return a file for the job's embeddings, with what it may replace; see ``fetch``."""
        manifest = self.manifest
        return OutputFile(
            path=user_path(path),
            is_ours=lambda origin: origin.is_of(self.name, manifest.model_digest),
            sources=sources_of(manifest.input, ModelSource(manifest.model), self.fleet.store),
            overwrite=overwrite,
        )

    def fetch_to(self, output: OutputFile) -> Fetched:
        """Write the finished job's embeddings as ``output`` allows; see ``fetch``."""
        output.check()
        return fetch(
            self.fleet.store,
            self.manifest,
            output.path,
            before_replacing=output.check_before_replacing(),
        )

    def verify(self) -> list[str]:
        """Read all objects of the finished job; return a text for each missing or damaged one."""
        return verify(self.fleet.store, self.manifest)

    def delete(self) -> None:
        """Delete the job from Redis and from the store, running or not.

        Raises:
            UnknownJobError: neither knows the job.
        """
        ledger, store = self.fleet.ledger, self.fleet.store
        with job_lock(ledger, self.name) as hold:
            found = ledger.jobs.progress(self.name)
            created = staged_at(store, self.name) if found is None else found.created
            if created is None and not has_objects(store, self.name):
                raise UnknownJobError(f"Neither Redis nor {store.url} knows a job {self.name!r}.")
            ledger.jobs.cancel(self.name)
            delete_job(store, ledger, self.name, hold, created=created)
