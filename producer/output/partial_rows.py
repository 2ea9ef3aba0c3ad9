"""The rows of those batches of a job that are final so far."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from common.advice import how_to
from common.errors import NotReadyError
from common.job.manifest import Manifest
from common.store import Store
from common.text import counted_batches
from producer.output.fan_out import FanOut
from producer.output.fetch import JobRows


class PartialRows(JobRows):
    """The rows of the batches that are final; a block is a batch."""

    def __init__(
        self, store: Store, manifest: Manifest, keys: dict[int, list[str]], folder: Path
    ) -> None:
        """Find the batches of which all rows can be written.

        Args:
            keys: of the shards of each batch that is final.
            folder: where temporary files are.

        Raises:
            NotReadyError: there are none.
            UserError: none of their shards can be read.
        """
        self._written = with_needs(store, manifest, sorted(keys))
        if not self._written:
            # One that is done may have copies of rows that are not.
            state = "can be written" if keys else "is done"
            raise NotReadyError(
                f"None of {counted_batches(manifest.batches)} of {manifest.job} {state} yet. To "
                f"wait for them: {how_to('watch', manifest.job)}"
            )
        super().__init__(store, manifest, folder, keys)
        self.records = sum(manifest.rows_of(index) for index in self._written)
        if self.form.has_residues:
            self.residues = sum(int(self.names(index).lengths.sum()) for index in self._written)
        if self.form.contacts:
            self.pairs = sum(int((self.names(i).lengths ** 2).sum()) for i in self._written)
        if len(self._written) < manifest.batches:
            done = f"{len(self._written):,} of {counted_batches(manifest.batches)}"
            self.attributes = {**self.attributes, "partial": done}

    def begin(self, chosen: Mapping[int, Collection[int]] | None) -> Iterable[int]:
        super().begin(None)
        return self._written


def with_needs(store: Store, manifest: Manifest, batches: Iterable[int]) -> list[int]:
    """Return those of some batches, in their order, whose copies are of rows of others of them."""
    found: dict[int, None] = {}
    with closing(FanOut(store, manifest)) as fan_out:
        for batch in batches:
            if fan_out.needs(batch) <= found.keys():
                found[batch] = None
    return list(found)
