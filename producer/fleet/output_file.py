"""The file for a job's embeddings: where it may be written, and what it may replace."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from common.errors import UserError
from common.job.output_form import OutputForm
from common.model_source import ModelSource
from common.paths import check_has_folder
from common.store import FileStore, Store
from producer.output.layouts.layout import Layout
from producer.output.wanted import Wanted


class Origin(NamedTuple):
    """What embeddings come from, as a file's attributes tell."""

    job: str
    input_fingerprint: str = ""  # empty: not known, as in files of earlier versions
    model_digest: str = ""  # of the model's files; likewise
    partial: str = ""  # the batches that were done, if not all were

    def is_of(self, job: str, model_digest: str | None, *, for_partial: bool = False) -> bool:
        """Return whether it is this job, and not known to be one of other weights.

        Args:
            for_partial: whether it is to give way to a partial file, as a whole one does not.
        """
        known = {self.model_digest, model_digest or ""} - {""}
        return self.job == job and len(known) < 2 and bool(self.partial or not for_partial)


#: The attributes of an output that tell.
ORIGIN = Origin._fields


class Target(NamedTuple):
    """A file or folder to be written, and the checks that belong to it."""

    path: Path
    #: Raises if what the file replaces must stay.
    before_replacing: Callable[[], None]
    #: Raises if there is no room for so many bytes.
    check_room: Callable[[int], None] = lambda _bytes: None


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """A file or folder to write; the same rules hold before the work and when it is written."""

    path: Path
    is_ours: Callable[[Origin], bool]
    #: Files and folders that must stay as they are, by their name in messages.
    sources: Mapping[str, Path]
    overwrite: bool = False
    wanted: Wanted = field(default_factory=Wanted)
    #: What was, or will be, computed; None: not known.
    form: OutputForm | None = None

    @property
    def place(self) -> Path:
        return self.path

    @property
    def layout(self) -> Layout:
        """How the embeddings are laid out.

        Raises:
            UserError: the name of the output does not tell, or contradicts what was asked for.
        """
        return self.wanted.layout_at(self.path)

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
            check_form(self.layout, self.form, self.wanted, self.path)
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
        there = any(map(os.path.lexists, self._paths()))
        return [
            f"--output={self.path}",
            *self.wanted.options(),
            *(["--overwrite"] if there else []),
        ]

    def _check_place(self) -> None:
        path = self.path
        if path.is_dir() and self.wanted.layout != "esm":
            raise UserError(
                f"{path} is a folder: name a file, such as {path / 'out.h5'}. For a folder of .pt "
                "files, as of esm-extract, add --layout esm.",
                path=path,
            )
        self._check_sources(path)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(
                f"{path} is not a regular file: embeddings cannot be written there.", path=path
            )
        for other in self._paths():
            self._check_sources(other)
        check_has_folder(path)

    def _paths(self) -> tuple[Path, ...]:
        """Return the file or folder, and the files beside it."""
        return self.path, *self.layout.others(self.path)

    def _check_sources(self, path: Path) -> None:
        for name, source in self.sources.items():
            if is_same(path, source):
                raise UserError(
                    f"{path} is {name} itself, and would be replaced: name another output "
                    "file (-o).",
                    path=path,
                )
            if source.is_dir() and is_inside(path, source):
                raise UserError(
                    f"{path} lies in the folder of {name}, {source}: name an output file (-o) "
                    "elsewhere.",
                    path=path,
                )
            if self.wanted.layout == "esm" and path.is_dir() and is_inside(source, path):
                raise UserError(
                    f"{path} is a folder with {name}, {source}, and would be replaced: name "
                    "another output (-o).",
                    path=path,
                )

    def check_replaced(self) -> None:
        """Check that the file is not there, or may be replaced.

        Raises:
            UserError: it is of somebody else, or of another job.
        """
        layout = self.layout
        if layout.is_folder != self.path.is_dir() and os.path.lexists(self.path):
            what = "a file" if layout.is_folder else "a folder"
            raise UserError(f"{self.path} is {what}: name another output (-o).", path=self.path)
        for path in self._paths():
            # A folder of other files is not even replaced with overwrite: too much may be in it.
            if not os.path.lexists(path) or (self.overwrite and not layout.is_folder):
                continue
            origin = origin_of(layout, path)
            if layout.is_folder and origin is None:
                if any(path.iterdir()):
                    raise UserError(
                        f"{path} is a folder with other files, and stays as it is: name another "
                        "output (-o).",
                        path=path,
                    )
            elif not self.overwrite and (origin is None or not self.is_ours(origin)):
                raise other_is_there(path, origin)


def check_form(layout: Layout, form: OutputForm | None, wanted: Wanted, place: str | Path) -> None:
    """Check that embeddings of a form, if it is known, can be written in a layout.

    Raises:
        UserError: they cannot.
    """
    if form is not None:
        layout.check(wanted.form_of(form), place)


def other_is_there(path: str | Path, origin: Origin | None) -> UserError:
    """Return the error of an output that is there already and is not replaced."""
    what = f"has the embeddings of job {origin.job}" if origin else "is another file"
    return UserError(
        f"{path} exists and {what}: name another output file (-o), or replace it with "
        "--overwrite (in Python: overwrite=True).",
        path=path,
    )


def sources_of(
    inputs: Sequence[str], models: Sequence[ModelSource], store: Store | None
) -> dict[str, Path]:
    """Return what a job's embeddings are made from: files and folders of this machine."""
    return {
        # What a manifest calls its input may be a name alone, and a folder's by chance.
        **{
            named_input(inputs, name): Path("/dev/stdin" if name == "-" else name)
            for name in inputs
            if not Path(name).is_dir()
        },
        **{named_model(models, model): Path(model.text) for model in models if model.is_path},
        **({"the store": store.root} if isinstance(store, FileStore) else {}),
    }


def named_input(inputs: Sequence[str], name: str) -> str:
    """Return how messages name one of the inputs."""
    return "the input" if len(inputs) == 1 else f"the input {name}"


def named_model(models: Sequence[ModelSource], model: ModelSource) -> str:
    """Return how messages name the weights of one of the models."""
    return "the model's weights" if len(models) == 1 else f"the weights {model.text}"


def is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:  # one of them is not there
        return False


def is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def origin_of(layout: Layout, source: Path | BinaryIO) -> Origin | None:
    """Return what an output's embeddings come from; None if it is not known to be of ``fetch``."""
    try:
        found = layout.attributes_of(source)
        if found is None:
            return None
        return Origin(*(str(found[n]) if n == "job" else str(found.get(n, "")) for n in ORIGIN))
    except Exception:  # libraries report damage in many ways
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
