"""The input objects of a job, read with their checksums."""

from collections.abc import Callable
from operator import ge
from typing import TypeVar

from common.alphabet import ALPHABETS
from common.crc import crc32
from common.errors import UserError
from common.job.cleaning import unknown_letters
from common.job.layout import job_prefix
from common.job.manifest import Manifest
from common.job.records import Columns, Record, decode_columns, records_of
from common.store import Store

T = TypeVar("T")


def read_input(store: Store, manifest: Manifest, index: int) -> list[Record]:
    """Return the records of a batch.

    Raises:
        StoreError: the store did not give the input object.
        UserError: the object is not the one that was staged.
    """
    return records_of(read_columns(store, manifest, index))


def read_columns(store: Store, manifest: Manifest, index: int) -> Columns:
    """Return the same as columns."""
    key = manifest.input_key(index)
    return read_staged(store, manifest, key, lambda data: decode_input(manifest, index, data))


def read_staged(store: Store, manifest: Manifest, key: str, decode: Callable[[bytes], T]) -> T:
    """Return the contents of an object that was staged with a job.

    Args:
        decode: raises ValueError if the bytes are not those that were staged.

    Raises:
        StoreError: the store did not give the object.
        UserError: the object is not the one that was staged.
    """
    try:
        return decode(store.get(key))
    except ValueError:
        data = store.get(key)  # once more: it may have been damaged on its way
    try:
        return decode(data)
    except ValueError as error:
        raise UserError(
            f"{store.url}/{key} is damaged ({error}): delete "
            f"{store.url}/{job_prefix(manifest.job)} and submit the input again.",
            path=f"{store.url}/{key}",
        ) from error


def decode_input(manifest: Manifest, index: int, data: bytes) -> Columns:
    """Return the records of a batch's input object.

    Raises:
        ValueError: it is not the object that was staged. Of a job of an earlier version, whose
            manifest has no checksums, only a part of all changes is seen.
    """
    checksum = manifest.input_checksum(index)
    if checksum and int(checksum, 16) != crc32(data):
        raise ValueError("it has another checksum than when it was staged")
    found = decode_columns(data)
    expected = manifest.batch_records[index]
    if len(found.rows) != expected:
        raise ValueError(f"it has {len(found.rows):,} of {expected:,} records")
    if any(map(ge, found.rows, found.rows[1:])):
        raise ValueError("its rows are not in order")
    if unknown_letters("".join(found.residues), ALPHABETS[manifest.alphabet]):
        raise ValueError(f"it has letters that are not of {manifest.alphabet}")
    return found
