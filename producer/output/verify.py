"""Verification of a job: reading all of its shards once, without writing."""

from contextlib import suppress

from common.bounded_map import bounded_map
from common.errors import UserError
from common.job.manifest import Manifest
from common.store import Store
from producer.output.fetch import SHARDS_AHEAD, attributes_of_job, merged, shards_by_batch


def verify(store: Store, manifest: Manifest) -> list[str]:
    """Check that a finished job can be fetched.

    Returns:
        The reason for each batch that cannot be fetched.

    Raises:
        UserError: a batch has no shard.
    """
    keys = shards_by_batch(store, manifest)
    attributes = None
    with suppress(UserError):  # no shard can be read: check says why of each
        attributes = attributes_of_job(store, keys)

    def check(index: int) -> str | None:
        try:
            of_job = attributes or attributes_of_job(store, {index: keys[index]})
            merged(store, manifest, index, keys[index], of_job)
        except UserError as error:
            return str(error)
        return None

    return [
        problem for problem in bounded_map(check, range(manifest.batches), SHARDS_AHEAD) if problem
    ]
