"""All shards of a job read once: is every row there, and as it was written?"""

from common.bounded_map import bounded_map
from common.errors import UserError
from common.job.manifest import Manifest
from common.store import Store
from producer.output.fetch import SHARDS_AHEAD, attributes_of_job, merged, shards_by_batch


def verify(store: Store, manifest: Manifest) -> list[str]:
    """Read a finished job as ``fetch`` does, without writing.

    Returns:
        What is wrong, in words: one text for each batch that could not be fetched.

    Raises:
        UserError: batches have no shard at all.
    """
    keys = shards_by_batch(store, manifest)
    attributes = attributes_of_job(store, keys)

    def check(index: int) -> str | None:
        try:
            merged(store, manifest, index, keys[index], attributes)
        except UserError as error:
            return str(error)
        return None

    return [
        problem for problem in bounded_map(check, range(manifest.batches), SHARDS_AHEAD) if problem
    ]
