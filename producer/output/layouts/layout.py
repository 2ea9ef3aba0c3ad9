"""What all layouts of an output have in common."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from common.embeddings.arrays import Embeddings
from common.errors import UserError
from common.installing import how_to_install
from common.job.output_form import OutputForm
from producer.output.contents import Contents

#: Files that hold what residues have.
FILES_OF_RESIDUES = "a .h5, .parquet, .npz or .safetensors file"


class RowWriter(Protocol):
    """Writes an output that is open."""

    def write(self, part: Embeddings) -> None:
        """Append rows, which come in the order of the input."""

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Complete the output after its last row.

        Args:
            attributes: what made the embeddings; only now are all of them known.
        """


class PlacingWriter(RowWriter, Protocol):
    """Writes an output that has a place for each block of rows, in any order."""

    def announce(self, names: Embeddings) -> None:
        """Write what the rows of the next block are called, before that block is placed."""

    def place(self, block: int, part: Embeddings) -> None:
        """Write a block of rows to its place; may be called while others are announced."""


class Layout(ABC):
    """How embeddings are laid out in a file, or in a folder."""

    #: The name for ``--layout``.
    name: ClassVar[str]
    #: Suffixes of its files; empty: of a folder.
    suffixes: ClassVar[tuple[str, ...]]
    #: A package that writing needs, and the extra that installs it.
    package: ClassVar[str | None] = None
    extra: ClassVar[str] = ""
    #: Whether it is one file, which can be an object in a bucket too.
    is_one_file: ClassVar[bool] = True
    is_folder: ClassVar[bool] = False
    #: Whether its writer is a PlacingWriter.
    has_places: ClassVar[bool] = False
    #: Whether vectors of residues have a place in it.
    holds_residues: ClassVar[bool] = True
    #: Names of the scores that have a place in it.
    scores: ClassVar[Collection[str]] = ()
    #: Whether it holds a single kind of vectors.
    holds_one_kind: ClassVar[bool] = False

    @abstractmethod
    def create(self, path: Path, contents: Contents) -> AbstractContextManager[RowWriter]:
        """Create an output under a name for the time being, and lock it.

        Raises:
            OSError: it cannot be written, or the disk is full; also in the block.
        """

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        """Return the attributes of what ``create`` wrote; None if it did not, or keeps none.

        May raise anything if the source is something else.
        """
        return None

    def others(self, path: Path) -> tuple[Path, ...]:
        """Return the files that are written beside ``path``."""
        return ()

    def replace(self, partial: Path, output: Path) -> None:
        """Give a complete output its name."""
        partial.replace(output)

    def discard(self, partial: Path) -> None:
        """Delete what is left of an output, if anything is."""
        with suppress(OSError):
            partial.unlink(missing_ok=True)

    def bytes_of(self, contents: Contents) -> int:
        """Estimate the bytes of an output."""
        return contents.bytes

    def check(self, form: OutputForm, place: str | Path) -> None:
        """Check, before any work, that an output of a form can be written.

        Raises:
            UserError: a package is missing, or the form has no place in the layout.
        """
        refused = [name for name in form.scores if name not in self.scores]
        if refused:
            others = "a .h5 file" if form.contacts else FILES_OF_RESIDUES
            raise UserError(
                f"{place}: {self.name} has no place for {', '.join(refused)}. Leave them out, as "
                f"with --include mean, or name {others}.",
                path=place,
            )
        if not self.holds_residues and form.per_residue:
            raise UserError(
                f"{place}: {self.name} has no place for the vectors of residues. Leave them out, "
                f"as with --include mean, or name {FILES_OF_RESIDUES}.",
                path=place,
            )
        if self.holds_one_kind and len(form.include) > 1:
            raise UserError(
                f"{place}: {self.name} holds one kind of vectors, and these are "
                f"{' and '.join(form.include)}. Choose one, as with --include {form.include[0]}.",
                path=place,
            )
        if self.package is not None:
            self.load_package()

    def load_package(self) -> Any:
        """Import the package that writing needs.

        Raises:
            UserError: it is not installed.
        """
        assert self.package is not None
        try:
            return import_module(self.package)
        except ImportError as error:
            raise UserError(
                f"{self.package} is not installed, which writes {self.name}: "
                f"{how_to_install(self.extra)}"
            ) from error
