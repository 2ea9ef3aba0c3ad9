"""Shards in a store: each is proven whole before HDF5 reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import h5py

from common.embeddings.checksums import DamagedError
from common.embeddings.reader import SourceFile, open_embedding_file
from common.embeddings.seal import Label, prove, read_trailer
from common.errors import VirnucproError
from common.job.layout import parse_shard_key
from common.store import Store, StoreError


class Shard(NamedTuple):
    """A shard that is open for reading."""

    label: Label
    file: SourceFile
    is_proven: bool  # all of its bytes are what was written; not of shards of earlier versions


@contextmanager
def open_shard(store: Store, key: str) -> Iterator[Shard]:
    """Open a shard.

    Raises:
        StoreError: the store did not give it.
        DamagedError: it is not what was written; raised here or in the block.
    """
    with damage_named(), store.open(key) as path:
        # HDF5 reads the file that was proven, whatever has that name by then.
        with read_errors(store, key):
            source = path.open("rb")
        with source:
            with read_errors(store, key):
                label = prove(source)
            with open_embedding_file(source) as file:
                yield Shard(label or label_in(file, key), file, label is not None)


def read_label(store: Store, key: str) -> Label:
    """Return the label of a shard, from its end alone.

    HDF5 reads those of earlier versions, in parts.

    Raises:
        StoreError: the store did not give it.
        DamagedError: it is not what was written.
    """
    with damage_named(), store.open_ranges(key) as part:
        with read_errors(store, key):
            trailer = read_trailer(part)
        if trailer is not None:
            return trailer.label
        with open_embedding_file(part) as file:
            return label_in(file, key)


def label_in(file: h5py.File, key: str) -> Label:
    """Return the label of a shard of an earlier version, which its attributes have."""
    attributes = file.attrs
    return Label(
        job=str(attributes["job"]),
        batch=int(attributes["batch"]),
        rung=parse_shard_key(key)[1],
        precision=attributes["precision"],
        tokens=int(attributes["tokens"]),
        records=len(file["rows"]),
        weights=str(attributes["weights"]),
    )


@contextmanager
def damage_named() -> Iterator[None]:
    """Raise DamagedError for whatever h5py and NumPy raise of a damaged file."""
    try:
        yield
    except (VirnucproError, DamagedError):
        raise
    except Exception as error:
        raise DamagedError(str(error) or type(error).__name__) from error


@contextmanager
def read_errors(store: Store, key: str) -> Iterator[None]:
    """Raise StoreError if the bytes of an object cannot be read."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"Store {store.url}: cannot read {key}: {error}.") from error
