"""A joint job of a fleet: several models over one input, with one file."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from common import __version__
from common.errors import UnknownJobError, UserError
from common.job.joint import (
    FramesReport,
    JointManifest,
    Member,
    find_joint,
    is_joint,
    joint_key,
    write_joint,
)
from common.model_source import ModelSource
from common.store import Store
from producer.fleet.job import Job
from producer.fleet.output import Output, output_at, place_of
from producer.fleet.output_file import Target
from producer.output.fetch import Fetched, JobRows
from producer.output.joint_file import group_names, join_files
from producer.output.partial import partial_of
from producer.output.wanted import Wanted
from producer.submission.joint import joint_name

if TYPE_CHECKING:
    from producer.fleet.fleet import Fleet


class JointJob:
    """Several models over one input: a job for each model, and what they have in common."""

    def __init__(self, fleet: "Fleet", name: str) -> None:
        """Name a joint job; the first use of it tells whether it exists.

        Raises:
            UnknownJobError: no joint job can have this name.
        """
        if not is_joint(name):
            raise UnknownJobError(f"{name!r} is not the name of a job of several models.")
        self.fleet = fleet
        self.name = name

    def __repr__(self) -> str:
        return f"JointJob({self.name!r})"

    @classmethod
    def of(
        cls, fleet: "Fleet", jobs: Sequence[Job], *, source: str, frames: FramesReport | None
    ) -> "JointJob":
        """Write the description of queued jobs into the store; return their joint job.

        Args:
            jobs: one for each model, in their order.
            source: the name of what was read.
            frames: the counts of the translation, if there was one.
        """
        joint = cls(fleet, joint_name([job.name for job in jobs], frames))
        manifest = JointManifest(
            package=__version__,
            job=joint.name,
            created=fleet.ledger.now(),
            input=source,
            members=tuple(Member(job=job.name, model=job.manifest.model) for job in jobs),
            frames=frames,
        )
        write_joint(fleet.store, manifest)
        fleet.ledger.joint.put(joint.name, [job.name for job in jobs])
        return joint

    @cached_property
    def manifest(self) -> JointManifest:
        """What the job is, from the store.

        Raises:
            UnknownJobError: the store has no such job.
        """
        found = find_joint(self.fleet.store, self.name)
        if found is None:
            raise UnknownJobError(
                f"{self.fleet.store.url} has no job {self.name!r}. Is this the store it was "
                "submitted to?"
            )
        return found

    @cached_property
    def jobs(self) -> list[Job]:
        """The jobs of the models, in their order; without a store, as Redis knows them.

        Raises:
            UnknownJobError: there is no such job.
        """
        if self.fleet.settings.store is None:
            names = self.fleet.ledger.joint.get(self.name)
            if not names:
                raise UnknownJobError(
                    f"Redis knows no job {self.name!r}. Its store may: name it by VIRNUCPRO_STORE."
                )
        else:
            names = [member.job for member in self.manifest.members]
        return [Job(self.fleet, name) for name in names]

    def output_file(
        self, path: str | Path, *, overwrite: bool = False, wanted: Wanted | None = None
    ) -> Output:
        """Return a place for the embeddings of all models, with what it may replace.

        Raises:
            UserError: the embeddings of several models have no place in such a file.
        """
        return joint_output(
            path,
            names=[self.name],
            inputs=[self.manifest.input],
            models=[member.model for member in self.manifest.members],
            store=self.fleet.store,
            overwrite=overwrite,
            wanted=wanted,
        )

    def fetch_to(self, output: Output) -> list[Fetched]:
        """Write the finished job's embeddings, a group for each model; return what each has.

        Raises:
            NotReadyError: batches are missing.
            UserError: the file cannot be written, or another one is there.
        """
        output.check()
        groups = group_names([member.model for member in self.manifest.members])
        with output.target() as target, self._beside(target) as folder:
            files = {name: folder / f"{n}.h5" for n, name in enumerate(groups)}
            fetched = [
                job.fetch_to(job.output_file(file, wanted=output.wanted))
                for job, file in zip(self.jobs, files.values(), strict=True)
            ]
            partial = partial_of(target.path)
            try:
                join_files(files, partial, self._attributes())
                target.before_replacing()
                partial.replace(target.path)
            except OSError as error:
                raise UserError(f"{output.place} cannot be written: {error}.") from error
            finally:
                partial.unlink(missing_ok=True)
        return [replace(one, path=output.place) for one in fetched]

    def rows(self) -> list[JobRows]:
        """Return the rows of each model's job, which is finished.

        Raises:
            NotReadyError: batches are missing.
        """
        return [JobRows(self.fleet.store, job.manifest) for job in self.jobs]

    def delete(self) -> None:
        """Delete the description of the job, whose parts are deleted."""
        self.fleet.store.delete(joint_key(self.name))
        self.fleet.ledger.joint.forget(self.name)

    @contextmanager
    def _beside(self, target: Target) -> Iterator[Path]:
        """Yield a temporary folder on the file system of a file to be written."""
        folder = target.path.parent
        with TemporaryDirectory(prefix=f".{target.path.name}.", dir=folder) as temporary:
            yield Path(temporary)

    def _attributes(self) -> dict[str, Any]:
        frames = self.manifest.frames
        counts = {} if frames is None else frames.model_dump(exclude_none=True)
        return {
            "job": self.name,
            "input": self.manifest.input,
            "version": __version__,
            **{f"frames_{name}": value for name, value in counts.items()},
        }


def not_finished(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs of a joint job that are not finished; all, if none is left or there is one.

    Raises:
        UnknownJobError: Redis does not know a job.
    """
    if len(jobs) == 1:
        return list(jobs)
    return [job for job in jobs if not job.status().finished] or list(jobs)


def joint_output(
    path: str | Path,
    *,
    names: Collection[str],
    inputs: Sequence[str],
    models: Sequence[str],
    store: Store | None,
    overwrite: bool = False,
    wanted: Wanted | None = None,
) -> Output:
    """Return a place for the embeddings of several models.

    Args:
        names: of the jobs whose files may be replaced.
        inputs, models, store: what is not replaced; see ``output_at``.

    Raises:
        UserError: the embeddings of several models have no place in such a file.
    """
    output = output_at(
        place_of(path),
        is_ours=lambda origin: origin.job in names,
        inputs=inputs,
        models=list(map(ModelSource.parse, models)),
        store=store,
        overwrite=overwrite,
        wanted=wanted,
    )
    if output.layout.name != "h5":
        raise UserError(
            f"{path}: several models have one HDF5 file (.h5), with a group for each. To have a "
            "group in another layout: producer export FILE.h5 --model NAME -o FILE2"
        )
    return output
