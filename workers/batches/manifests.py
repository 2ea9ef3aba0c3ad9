"""The manifests of the jobs whose batches a worker computes."""

from collections import OrderedDict
from functools import partial
from threading import Lock

from common.job.layout import opening_key
from common.job.manifest import Manifest
from common.job.opening import read_manifest_so_far
from common.store import Store, StoreError
from common.wire.messages import Batch
from workers.batches.counting import timed

#: Number of jobs whose manifests stay in memory.
KEPT = 16


class Manifests:
    """The manifests that were read last; that of a job which is being staged is read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # By the time of its staging too: another staging may have cut other batches.
        self._latest: OrderedDict[tuple[str, float | None], Manifest] = OrderedDict()
        self._lock = Lock()

    def of(self, batch: Batch) -> Manifest:
        """Return the manifest of a batch's job, or what there is of it, which has the batch.

        Raises:
            StoreError: the store does not give it, or not what was written last.
            UserError: it cannot be read.
        """
        key = batch.job, batch.created
        with self._lock:
            manifest = self._latest.get(key)
        if manifest is not None and batch.index < manifest.batches:
            return manifest
        manifest = timed("read", partial(read_manifest_so_far, self._store, batch.job))()
        if batch.created not in (None, manifest.created.timestamp()):
            raise StoreError(
                f"{self._store.url}/{batch.job} is of another staging of the job than batch "
                f"{batch.index}: the store shows another state, or is another than the job's."
            )
        if batch.index >= manifest.batches:
            raise StoreError(
                f"{self._store.url}/{opening_key(batch.job)} does not have batch {batch.index} "
                "yet, though it was written before: the store shows an earlier state."
            )
        with self._lock:
            self._latest[key] = manifest
            while len(self._latest) > KEPT:
                self._latest.popitem(last=False)
        return manifest
