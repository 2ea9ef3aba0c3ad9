"""The file for a job's embeddings: where it may be written, and what it may replace."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from common.embeddings.reader import open_embedding_file
from common.errors import UserError
from common.model_source import ModelSource
from common.paths import check_has_folder
from common.store import FileStore, Store

#: Suffixes of HDF5 files. A name without one is refused too: tools go by it, and it may be meant
#: as a folder, as in ``esm-extract``.
SUFFIXES = (".h5", ".hdf5", ".hdf")

#: Datasets of the files that ``fetch`` writes. A file with another one has something of its owner.
DATASETS = {
    *("ids", "headers", "rows", "lengths", "input_lengths", "precision"),
    *("mean", "bos", "residues", "offsets"),
}


class Origin(NamedTuple):
    """What embeddings come from, as a file's attributes tell."""

    job: str
    input_fingerprint: str = ""  # empty: not known, as in files of earlier versions
    model_digest: str = ""  # of the model's files; likewise

    def is_of(self, job: str, model_digest: str | None) -> bool:
        """Return whether it is this job, and not known to be one of other weights."""
        known = {self.model_digest, model_digest or ""} - {""}
        return self.job == job and len(known) < 2


class Target(NamedTuple):
    """A file to be written, and the checks that belong to it."""

    path: Path
    #: Raises if what the file replaces must stay.
    before_replacing: Callable[[], None]
    #: Raises if there is no room for so many bytes.
    check_room: Callable[[int], None] = lambda _bytes: None


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """A file to write; the same rules hold before the work and when it is written."""

    path: Path
    is_ours: Callable[[Origin], bool]
    #: Files and folders that must stay as they are, by their name in messages.
    sources: Mapping[str, Path]
    overwrite: bool = False

    @property
    def place(self) -> Path:
        return self.path

    @property
    def working(self) -> Path:
        """The path beside which a run on this machine keeps its files."""
        return self.path

    @contextmanager
    def target(self) -> Iterator[Target]:
        """Yield the file to write; see ``check_before_replacing``."""
        yield Target(self.path, self.check_before_replacing())

    def check(self) -> None:
        """Check, before any work, that the file can be written and destroys nothing.

        Raises:
            UserError: it cannot, with what to do.
        """
        try:
            self._check_place()
            self.check_replaced()
            check_writable(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} cannot be written: {error}.", path=self.path) from error

    def check_room(self, needed: int) -> None:
        """Do nothing: what is free beside the file says little of what will be at the job's end."""

    def check_before_replacing(self) -> Callable[[], None]:
        """Return the check for right before the file is replaced, which may be hours later.

        That raises UserError if the file must stay, or was written since now.
        """
        before = version_of(self.path)

        def check() -> None:
            self.check_replaced()
            if version_of(self.path) != before:
                raise UserError(
                    f"{self.path} was written by another process meanwhile, and is kept as it is. "
                    "Name another output file (-o), or fetch once more.",
                    path=self.path,
                )

        return check

    def options(self) -> list[str]:
        """Return the options with which a later command may write this file."""
        return [f"--output={self.path}", *(["--overwrite"] if os.path.lexists(self.path) else [])]

    def _check_place(self) -> None:
        path = self.path
        if path.is_dir():
            raise UserError(
                f"{path} is a folder: name a file, such as {path / 'out.h5'}.", path=path
            )
        self._check_sources()
        if path.exists() and not path.is_file():
            raise UserError(
                f"{path} is not a regular file: an HDF5 file cannot be written there.", path=path
            )
        check_suffix(path, str(path.with_suffix(".h5")))
        check_has_folder(path)

    def _check_sources(self) -> None:
        for name, source in self.sources.items():
            if is_same(self.path, source):
                raise UserError(
                    f"{self.path} is {name} itself, and would be replaced: name another output "
                    "file (-o).",
                    path=self.path,
                )
            if source.is_dir() and is_inside(self.path, source):
                raise UserError(
                    f"{self.path} lies in the folder of {name}, {source}: name an output file (-o) "
                    "elsewhere.",
                    path=self.path,
                )

    def check_replaced(self) -> None:
        """Check that the file is not there, or may be replaced.

        Raises:
            UserError: it is of somebody else, or of another job.
        """
        if self.overwrite or not os.path.lexists(self.path):
            return
        origin = origin_of(self.path)
        if origin is None or not self.is_ours(origin):
            raise other_is_there(self.path, origin)


def check_suffix(path: str | Path, better: str) -> None:
    """Check that a name says that its content is HDF5.

    Args:
        better: a name that does.

    Raises:
        UserError: it does not.
    """
    if PurePath(path).suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: embeddings are written as HDF5, to a file named .h5, .hdf5 or .hdf, such "
            f"as {better}.",
            path=path,
        )


def other_is_there(path: str | Path, origin: Origin | None) -> UserError:
    """Return the error of an output that is there already and is not replaced."""
    what = f"has the embeddings of job {origin.job}" if origin else "is another file"
    return UserError(
        f"{path} exists and {what}: name another output file (-o), or replace it with "
        "--overwrite (in Python: overwrite=True).",
        path=path,
    )


def sources_of(input_: str, model: ModelSource, store: Store | None) -> dict[str, Path]:
    """Return what a job's embeddings are made from: files and folders of this machine."""
    # What a manifest calls its input may be a name alone, and a folder's by chance.
    path_of_input = Path("/dev/stdin" if input_ == "-" else input_)
    return {
        **({} if Path(input_).is_dir() else {"the input": path_of_input}),
        **({"the model's weights": Path(model.text)} if model.is_path else {}),
        **({"the store": store.root} if isinstance(store, FileStore) else {}),
    }


def is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:  # one of them is not there
        return False


def is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def origin_of(source: Path | BinaryIO) -> Origin | None:
    """Return what a file's embeddings come from; None if ``fetch`` did not write it."""
    try:
        with open_embedding_file(source) as file:
            if not set(file) <= DATASETS:
                return None
            job = str(file.attrs["job"])
            return Origin(job, *(str(file.attrs.get(name, "")) for name in Origin._fields[1:]))
    except Exception:  # h5py reports damage in many ways
        return None


def version_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever a file is replaced or written; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_writable(path: Path) -> None:
    """Raise OSError unless a file can be created beside ``path``."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    probe.touch()
    probe.unlink()
