"""The copies of a batch: its rows that are identical to an earlier one, and are not computed.

An object beside the batch's input has a line for each, of a row, its original, the letters and the
header; a header may have tabs.

    5120	17	142	sp|P69907|HBA_PANPA Hemoglobin subunit alpha
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from common.bounded_map import bounded_map
from common.crc import crc32
from common.job.inputs import read_staged
from common.job.manifest import Manifest
from common.job.records import first_word
from common.store import Store
from common.wire.messages import Instability

#: Objects that are read ahead.
READ_AHEAD = 4


class Copy(NamedTuple):
    """A row with the same letters as an earlier one."""

    row: int
    original: int  # an earlier row, which is computed: it is in the input object of some batch
    length: int  # letters in the input
    header: str

    @property
    def id(self) -> str:
        """The header's first word."""
        return first_word(self.header)


def encode_copies(copies: Iterable[Copy], before: int = 0) -> bytes:
    """Return the object of a batch's copies.

    Args:
        before: rows of the input before those that the copies' own rows are counted from.
    """
    return "".join(
        [
            f"{before + row}\t{original}\t{length}\t{header}\n"
            for row, original, length, header in copies
        ]
    ).encode()


def decode_copies(data: bytes) -> list[Copy]:
    """Return the copies of a batch's object.

    Raises:
        ValueError: ``encode_copies`` cannot have written it.
    """
    *lines, rest = data.decode().split("\n")
    if rest:
        raise ValueError("the object is cut short")
    copies = []
    for line in lines:
        row, original, length, header = line.split("\t", 3)
        copies.append(Copy(int(row), int(original), int(length), header))
    return copies


def read_copies(store: Store, manifest: Manifest, index: int) -> list[Copy]:
    """Return the copies of a batch in the order of their rows; most batches may have none.

    Raises:
        StoreError: the store did not give the object.
        UserError: the object is not the one that was staged.
    """
    if not manifest.copies_of(index):
        return []
    key = manifest.copies_key(index)
    return read_staged(store, manifest, key, lambda data: checked_copies(manifest, index, data))


def copies_by_batch(store: Store, manifest: Manifest) -> Iterator[tuple[int, list[Copy]]]:
    """Yield each batch that has copies, with these; see ``read_copies``."""
    batches = [batch for batch, copies in enumerate(manifest.batch_copies) if copies]
    found = bounded_map(partial(read_copies, store, manifest), batches, READ_AHEAD)
    return zip(batches, found, strict=True)


def as_copy(bad: Instability, copy: Copy) -> Instability:
    """Return what is said of a quarantined row, of a copy of it."""
    return bad.model_copy(update={"row": copy.row, "id": copy.id})


def checked_copies(manifest: Manifest, index: int, data: bytes) -> list[Copy]:
    """Return the copies of a batch's object.

    Raises:
        ValueError: it is not the object that was staged.
    """
    if int(manifest.copies_checksum(index), 16) != crc32(data):
        raise ValueError("it has another checksum than when it was staged")
    copies = decode_copies(data)
    if len(copies) != manifest.copies_of(index):
        raise ValueError(f"it has {len(copies):,} of {manifest.copies_of(index):,} rows")
    if any(one.row >= other.row for one, other in pairwise(copies)):
        raise ValueError("its rows are not in order")
    if copies[0].row <= manifest.batch_rows[index] or any(c.original >= c.row for c in copies):
        raise ValueError("its rows are not behind those that they are copies of")
    return copies
