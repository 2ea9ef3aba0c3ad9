"""What a store alone knows of a job, without Redis: its manifest, its embeddings, its damage."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from common.advice import how_to
from common.errors import NotReadyError, UnknownJobError, UserError
from common.job.manifest import Manifest, find_job
from common.job.opening import find_opening
from common.ledger.progress import JobState
from common.model_source import ModelSource
from common.wire.messages import JOB_NAME, Instability
from producer.fleet.output import Output, output_at, place_of
from producer.fleet.report import asked_of, write_report
from producer.output.fetch import Fetched, JobRows
from producer.output.job_embeddings import JobEmbeddings
from producer.output.verify import problems_of
from producer.output.wanted import Wanted
from producer.report.collect import report_of_job
from producer.report.contents import Report
from producer.scheduling.closed import read_closed
from producer.scheduling.deletion import Size, size_of
from producer.scheduling.retry import quarantined_rows

if TYPE_CHECKING:
    from producer.fleet.fleet import Fleet


class StoredJob:
    """A submitted job, as far as its store knows it."""

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
            NotReadyError: the job is still being staged.
            UnknownJobError: the store has no such job.
        """
        store = self.fleet.store
        manifest = find_job(store, self.name)
        if manifest is None and find_opening(store, self.name) is not None:
            raise NotReadyError(
                f"The input of job {self.name} is still being staged: run the command again once "
                f"the command that submitted it has ended. To see how far it is: "
                f"{how_to('status', self.name)}"
            )
        if manifest is None:
            raise UnknownJobError(
                f"{store.url} has no job {self.name!r}. Is this the store it was submitted to?"
            )
        return manifest

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

    def quarantined(self) -> list[Instability]:
        """Return the sequences without an embedding, and why, in input order."""
        return quarantined_rows(self.fleet.store, self.manifest)

    def output_file(
        self, path: str | Path, *, overwrite: bool = False, wanted: Wanted | None = None
    ) -> Output:
        """Return a place for the job's embeddings, with what it may replace; see ``fetch``."""
        manifest, wanted = self.manifest, wanted or Wanted()
        for_partial = wanted.partial
        return output_at(
            place_of(path),
            is_ours=lambda origin: origin.is_of(
                self.name, manifest.model_digest, for_partial=for_partial
            ),
            inputs=manifest.inputs,
            models=[ModelSource(manifest.model)],
            store=self.fleet.store,
            overwrite=overwrite,
            wanted=wanted,
            form=manifest.form,
        )

    def fetch_to(self, output: Output) -> Fetched:
        """Write the finished job's embeddings as ``output`` allows; see ``fetch``."""
        output.check()
        with output.target() as target:
            rows = self._rows(output.wanted, target.path.parent)
            fetched = rows.write(
                target.path,
                output.wanted,
                before_replacing=target.before_replacing,
                check_room=target.check_room,
            )
        return replace(fetched, path=output.place)

    def _rows(self, wanted: Wanted, folder: Path) -> JobRows:
        """Return the rows to write."""
        try:
            return JobRows(self.fleet.store, self.manifest, folder)
        except NotReadyError as error:
            how = how_to("fetch", self.name, "-o", "FILE", follow=True)
            raise NotReadyError(f"{error}\nTo write their file meanwhile: {how}") from error

    def report(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        csv: str | Path | None = None,
        color: str | Iterable[str] = (),
        umap: bool = True,
    ) -> Path:
        """Write a page about the job, with a map of its embeddings; return its path.

        It needs no network, and no other file. Of a job that is not finished, it shows the batches
        that are done; events are shown if Redis answers.

            job.report("report.html", csv="hosts.csv", color=["host", "family"])

        Args:
            path: the page to write, ``.html``. An earlier report of this job is replaced.
            overwrite: replace any other file too.
            csv: a CSV or TSV file with a column of ids and others to colour the map by.
            color: columns of it; empty: all.
            umap: make a map by UMAP too, if umap-learn is installed; it may take minutes.

        Raises:
            UnknownJobError: the store has no such job.
            UserError: plotly is not installed, a shard or the table cannot be read, the page
                cannot be written, or another file is there.
        """
        asked, fleet, manifest = asked_of(csv, color, umap=umap), self.fleet, self.manifest

        def made() -> Report:
            return report_of_job(fleet.store, manifest, lambda: fleet.ledger, asked)

        return write_report(path, self.name, made, asked, overwrite=overwrite)

    def verify(self) -> list[str]:
        """Read all objects of the finished job; return a text for each missing or damaged one."""
        return list(map(str, self.problems()))

    def problems(self) -> list[UserError]:
        """Return what ``verify`` does as errors.

        They are ``NotReadyError`` alone if there is no other, and the job is not known to be
        finished.
        """
        found = problems_of(self.fleet.store, self.manifest)
        if all(isinstance(problem, NotReadyError) for problem in found) and not self.was_finished():
            return found
        return [UserError(str(problem)) for problem in found]

    def was_finished(self) -> bool:
        """Return whether a keeper marked the job as finished in the store."""
        closed = read_closed(self.fleet.store, self.name)
        return closed is not None and closed.state is JobState.FINISHED

    def size(self) -> Size:
        """Return how many objects the job has in the store, and their bytes; all are listed."""
        return size_of(self.fleet.store, self.name)
