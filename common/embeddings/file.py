"""Reading a file of embeddings, as ``producer fetch`` and ``Job.fetch`` write it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from common.embeddings.arrays import Array, not_included
from common.embeddings.checksums import CHECKSUM, DamagedError, checksum
from common.embeddings.origins import Origins
from common.embeddings.reader import check_stored
from common.embeddings.table import EmbeddingTable
from common.embeddings.writer import PAIR_OFFSETS
from common.errors import UserError
from common.job.output_form import POOLED, RECORD_SCORES
from common.paths import user_path

#: Datasets that every file of embeddings has.
NEEDED = ("ids", "rows", "lengths", "precision")

#: The attribute of a joint job's file that names its groups, one for each model.
GROUPS = "models"


class EmbeddingFileError(UserError):
    """A file that has no embeddings, or is damaged.

    Attributes:
        path: the file.
    """


class EmbeddingFile(EmbeddingTable):
    """The embeddings in a file; see ``load``."""

    def __init__(self, path: str | os.PathLike[str], model: str | None = None) -> None:
        self.path = str(user_path(os.fspath(path)))
        if not Path(self.path).exists():
            raise EmbeddingFileError(f"{self.path}: no such file.", path=self.path)
        if Path(self.path).is_dir():
            raise EmbeddingFileError(
                f"{self.path} is a folder: name the HDF5 file that fetch wrote.", path=self.path
            )
        try:
            self._file = h5py.File(self.path, "r")
        except MemoryError:
            raise
        except Exception as error:
            raise EmbeddingFileError(
                f"{self.path} is not an HDF5 file, or only a part of one, or cannot be read. If it "
                "is a job's, fetch it again.",
                path=self.path,
            ) from error
        try:
            self._group = self._group_of(model)
            self._check_datasets()
            with self.errors("attributes"):
                attributes = self._group.attrs.items()
                super().__init__({name: plain(value) for name, value in attributes})
        except EmbeddingFileError:
            self._file.close()
            raise

    def _group_of(self, model: str | None) -> h5py.Group:
        """Return what holds the embeddings: the file, or the group of one of its models."""
        with self.errors("attributes"):
            groups = [str(name) for name in plain(self._file.attrs.get(GROUPS, ()))]
        if model is None and not groups:
            return self._file
        if model in groups:
            return self._file[model]
        has = f"has the embeddings of {' and '.join(groups) if groups else 'a single model'}"
        advice = f"name one of them, as model={groups[0]!r}" if groups else "name none"
        what = "" if model is None else f", and none of {model!r}"
        raise EmbeddingFileError(f"{self.path} {has}{what}: {advice}.", path=self.path)

    def _check_datasets(self) -> None:
        """Raise EmbeddingFileError unless the file has the datasets of embeddings."""
        with self.errors("the list of datasets"):
            missing = [name for name in NEEDED if name not in self._group]
            if missing:
                raise EmbeddingFileError(
                    f"{self.path} is an HDF5 file, but not one of embeddings: it has no dataset "
                    f"{missing[0]!r}.",
                    path=self.path,
                )
            columns = [name for name in (*NEEDED, *POOLED, *RECORD_SCORES) if name in self._group]
            if len({len(self._column(name)) for name in columns}) > 1:
                raise DamagedError("they have different numbers of rows")

    def __repr__(self) -> str:
        state = "" if self._file else ", closed"
        return f"EmbeddingFile({self.path!r}, model {self.attributes.get('model')}{state})"

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
        """Close the file; what was read from it stays."""
        self._file.close()

    @property
    def datasets(self) -> h5py.Group:
        """The open HDF5 file, or the group of a model in it."""
        return self._group

    def _vectors(self, where: int | slice) -> Array:
        with self.errors("mean"):
            return super()._vectors(where)

    def _column(self, name: str) -> Any:
        if not self._file:
            raise EmbeddingFileError(f"{self.path} is closed: load it again.", path=self.path)
        with self.errors(name):
            if name not in self._group:
                raise not_included("per_residue" if name == "residues" else name)
            dataset = self._group[name]
            return dataset.asstr() if name == "ids" else dataset

    def _array(self, name: str) -> Array:
        with self.errors(name):
            return self._read(name)

    @cached_property
    def ids(self) -> list[str]:
        """The ids ``[N]``."""
        with self.errors("ids"):
            return list(self._read("ids"))

    @cached_property
    def origins(self) -> Origins | None:
        if "source_names" not in self._group:
            return None
        with self.errors("source_names"):
            names = self._group["source_names"].asstr()[:].tolist()
            return Origins.of(zip(names, self._group["source_records"][:].tolist(), strict=True))

    def _read(self, name: str) -> Array:
        """Read a whole column; compare it with the checksum that it was written with."""
        column = self._column(name)
        check_stored(self._group[name], name)
        values: Array = column[:]
        expected = self._group[name].attrs.get(CHECKSUM)
        if expected is not None:
            texts_or_numbers = list(values) if name == "ids" else values
            if checksum(texts_or_numbers, 0) != expected:
                raise DamagedError("it has another checksum than when it was written")
        return values

    def _residues_at(self, position: int, name: str) -> Array:
        with self.errors(name):
            vectors = self._column(name)
            start, end = self._offsets[position : position + 2]
            here: Array = vectors[start:end]
            return here

    def _pairs_at(self, position: int, name: str) -> Array:
        with self.errors(name):
            values = self._column(name)
            start, end = self._column(PAIR_OFFSETS)[position : position + 2]
            length = int(self._column("lengths")[position])
            here: Array = values[start:end].reshape(length, length)
            return here

    @cached_property
    def _offsets(self) -> Any:
        """Where each sequence's residues start ``[N + 1]``: an array, or a dataset that is one."""
        if "offsets" in self._group:
            return self._group["offsets"]
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """Say which file it is that cannot be read."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # h5py reports damage in many ways
            raise EmbeddingFileError(
                f"{self.path}: {name} cannot be read ({error}). The file is damaged; if it is a "
                "job's, fetch it again.",
                path=self.path,
            ) from error


def plain(value: Any) -> Any:
    """Return an attribute as Python's own type: NumPy's scalars and arrays as numbers and lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def load(path: str | os.PathLike[str], *, model: str | None = None) -> EmbeddingFile:
    """Open a file of embeddings; nothing is read from it before it is needed.

        embeddings = load("embeddings.h5")
        embeddings["P03265"]  # [D]

    A shard in the store can be read in the same way. Files of earlier versions stay readable.

    Args:
        model: whose embeddings, of a file that has those of several.

    Raises:
        EmbeddingFileError: there is no such file, or it has no embeddings, or several models'.
    """
    return EmbeddingFile(path, model)
