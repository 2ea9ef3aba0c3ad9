"""The copies of a batch: its rows that are identical to an earlier one, and are not computed.

Their object is described in ``copy_lines``.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from common.bounded_map import bounded_map
from common.crc import crc32
from common.job.copy_lines import Copy, decode_copies
from common.job.inputs import read_staged
from common.job.manifest import Manifest
from common.store import Store
from common.wire.messages import Instability

#: Objects that are read ahead.
READ_AHEAD = 4


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
