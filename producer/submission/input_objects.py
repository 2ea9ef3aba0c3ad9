"""Writing the input object of a batch, and that of its copies."""

from common.crc import crc32
from common.job.layout import copies_key, input_key
from common.store import Store


def write_batch(
    store: Store, job: str, staging: str, number: int, records: bytes, copies: bytes
) -> tuple[int, int]:
    """Write the input object of a batch, and that of its copies; return the checksums of both."""
    store.put(input_key(job, number, staging), records)
    if copies:
        store.put(copies_key(job, number, staging), copies)
    return crc32(records), crc32(copies)
