"""The object for a job's embeddings: where it may be written, and what it may replace.

The file is written to a folder for temporary files, and uploaded once it is whole.
"""

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common.errors import UserError
from common.job.output_form import OutputForm
from common.model_source import ModelSource
from common.settings import Settings
from common.store import ObjectNotFoundError, S3Store, Store
from common.store.bucket import split_s3_url
from common.store.s3_object import S3Object
from common.text import counted_bytes
from producer.fleet.output_file import (
    Origin,
    Target,
    check_form,
    named_input,
    named_model,
    origin_of,
    other_is_there,
)
from producer.output.layouts.layout import Layout
from producer.output.wanted import Wanted

#: Error numbers of a file system that is full.
FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, kw_only=True)
class OutputObject:
    """An object to write; the rules are those of a file, before the work and when it is written."""

    url: str
    is_ours: Callable[[Origin], bool]
    #: URLs of objects that must stay as they are, by their name in messages; those that end with
    #: a slash are prefixes.
    sources: Mapping[str, str]
    overwrite: bool = False
    wanted: Wanted = field(default_factory=Wanted)
    #: What was, or will be, computed; None: not known.
    form: OutputForm | None = None

    @property
    def place(self) -> str:
        return self.url

    @property
    def layout(self) -> Layout:
        """How the embeddings are laid out.

        Raises:
            UserError: the name of the object does not tell, or the layout is not one file.
        """
        layout = self.wanted.layout_at(self.url)
        if not layout.is_one_file:
            raise UserError(
                f"{self.url}: layout {layout.name} is several files, and an output in a bucket is "
                "one object. Write it to this machine and copy it, or name another suffix, such "
                "as .npz.",
                path=self.url,
            )
        return layout

    @property
    def working(self) -> Path:
        """The path beside which a run on this machine keeps its files."""
        return Path(self.object.name)

    @cached_property
    def object(self) -> S3Object:
        return S3Object(self.url)

    def check(self) -> None:
        """Check, before any work, that the object can be written and destroys nothing.

        Raises:
            UserError: it cannot, with what to do.
        """
        _ = self.object.name  # or there is none
        check_form(self.layout, self.form, self.wanted, self.url)
        for name, source in self.sources.items():
            url = self.object.url
            if url == source or (source.endswith("/") and url.startswith(source)):
                raise UserError(
                    f"{self.url} lies in {name}, {source}: name an output (-o) elsewhere.",
                    path=self.url,
                )
        self.check_replaced()
        self.object.check_writable()
        with temporary_folder(self.url):
            pass

    def check_replaced(self) -> None:
        """Check that the object is not there, or may be replaced.

        Raises:
            UserError: it is of somebody else, or of another job.
        """
        if self.overwrite:
            return
        try:
            with self.object.open() as file:
                origin = origin_of(self.layout, file)
        except ObjectNotFoundError:
            return
        if origin is None or not self.is_ours(origin):
            raise other_is_there(self.url, origin)

    def check_room(self, needed: int) -> None:
        """Check, before the work, that a file of so many bytes can be written at its end.

        Raises:
            UserError: it cannot, however much is deleted meanwhile.
        """
        with temporary_folder(self.url) as folder:
            Room(self.url, folder).check_ever(needed)

    def options(self) -> list[str]:
        """Return the options with which a later command may write this object."""
        there = self.object.etag() is not None
        return [
            f"--output={self.url}",
            *self.wanted.options(),
            *(["--overwrite"] if there else []),
        ]

    @contextmanager
    def target(self) -> Iterator[Target]:
        """Yield a file to write, which becomes the object at a clean exit.

        Raises:
            UserError: there is no room for it, or the object was written by another meanwhile.
        """
        before = self.object.etag()

        def check() -> None:
            self.check_replaced()
            if self.object.etag() != before:
                raise UserError(
                    f"{self.url} was written by another process meanwhile, and is kept as it is. "
                    "Name another output (-o), or fetch once more.",
                    path=self.url,
                )

        with temporary_folder(self.url) as folder:
            room = Room(self.url, folder)
            try:
                yield Target(folder / self.object.name, check, room.check)
            except UserError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in FULL:
                    raise room.error() from error
                raise
            self.object.write(folder / self.object.name, before)


class Room:
    """The room for a file in the folder for temporary files."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.needed = 0

    def check(self, needed: int) -> None:
        """Check that there is room for so many bytes.

        Raises:
            UserError: there is not.
        """
        self.check_ever(needed)
        if shutil.disk_usage(self.folder).free < needed:
            raise self.error()

    def check_ever(self, needed: int) -> None:
        """Check that so many bytes are not more than the disk has, or than files may take.

        Raises:
            UserError: they are.
        """
        self.needed = needed
        limit = Settings.read().tmp_bytes
        if limit is not None and limit < needed:
            raise self._error(
                f"where files may take {counted_bytes(limit)} (VIRNUCPRO_TMP_BYTES): give that "
                "folder more room and raise the limit, or name an output on another disk"
            )
        total = shutil.disk_usage(self.folder).total
        if total < needed:
            raise self._error(
                f"where there are {counted_bytes(total)} in all. Set TMPDIR to a folder with more "
                "room"
            )

    def error(self) -> UserError:
        free = counted_bytes(shutil.disk_usage(self.folder).free)
        return self._error(f"where {free} are free. Set TMPDIR to a folder with more room")

    def _error(self, where: str) -> UserError:
        return UserError(
            f"{self.url}: the file is written to {self.folder.parent} before it is uploaded, and "
            f"needs about {counted_bytes(self.needed)} there, {where}.",
            path=self.url,
        )


@contextmanager
def temporary_folder(url: str) -> Iterator[Path]:
    """Yield a folder for temporary files.

    Raises:
        UserError: none can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="virnucpro-")
    except OSError as error:
        raise UserError(
            f"{url}: the file is written to a folder for temporary files before it is uploaded, "
            f"and there is none ({error}). Set TMPDIR to a folder that can be written.",
            path=url,
        ) from error
    with folder as name:
        yield Path(name)


def s3_sources_of(
    inputs: Sequence[str], models: Sequence[ModelSource], store: Store | None
) -> dict[str, str]:
    """Return what a job's embeddings are made from: URLs of objects, and of prefixes."""
    return {
        **{named_input(inputs, url): normal(url) for url in inputs if url.startswith("s3://")},
        **{
            named_model(models, model): f"{model.text.rstrip('/')}/"
            for model in models
            if model.text.startswith("s3://")
        },
        **({"the store": f"{store.url}/"} if isinstance(store, S3Store) else {}),
    }


def normal(url: str) -> str:
    """Return the URL of an object as ``S3Object`` has it."""
    bucket, key = split_s3_url(url)
    return f"s3://{bucket}/{key}"
