"""The rows of a job that is under way, which are written as its batches become final."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from redis.exceptions import RedisError

from common.bounded_map import bounded_map
from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import continued
from common.embeddings.placed_writer import NAMES
from common.job.copies import READ_AHEAD
from common.job.layout import shard_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.quarantine import read_quarantine
from common.ledger.batches import Flags
from common.ledger.ledger import Ledger
from common.store import ObjectNotFoundError, Store, StoreError
from producer.output.contents import Block
from producer.output.fetch import Fetched, JobRows
from producer.output.job_shards import another_batch
from producer.output.named import named_rows
from producer.output.wanted import Wanted

T = TypeVar("T")


class AbandonedError(Exception):
    """The file is not wanted any more."""


class ChangedError(Exception):
    """The job has ended, and what was written of it, or can be, is not the whole of it."""


class Pace:
    """What the thread that writes a file is told by the one that waits for the job."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._told = threading.Event()
        self._abandoned = False
        self.ended = False

    def end(self) -> None:
        """Tell that the job is finished."""
        self.ended = True
        self._told.set()

    def abandon(self) -> None:
        """Tell that the file is not wanted any more."""
        self._abandoned = True
        self._told.set()

    def check(self) -> None:
        """Raise AbandonedError if the file is not wanted any more."""
        if self._abandoned:
            raise AbandonedError

    def wait(self) -> None:
        """Wait a moment for the job to go on, or until something is told.

        Raises:
            AbandonedError: the file is not wanted any more.
        """
        self._told.wait(self._poll_seconds)
        self.check()


class FinalBatches:
    """The batches of a job that are final so far: none of their rows has work left."""

    def __init__(self, ledger: Ledger, manifest: Manifest, pace: Pace) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._pace = pace
        self._known = np.zeros(manifest.batches, np.bool_)
        #: The keys of the shards of each.
        self.keys: dict[int, list[str]] = {}

    def wait(self) -> list[int]:
        """Wait until more batches are final; return these in their order.

        Raises:
            AbandonedError: the file is not wanted any more.
            ChangedError: the job has ended before.
        """
        while True:
            ended = self._pace.ended  # before the look, so that it finds all
            try:
                found = final_shards(self._ledger, self._manifest, self._known)
            except RedisError as error:
                if ended:
                    raise ChangedError from error
                found = {}  # it may be restarting
            if found:
                self.keys |= found
                self._known[list(found)] = True
                return list(found)
            if ended:
                raise ChangedError
            self._pace.wait()

    def in_order(self, batches: Iterable[int]) -> Iterator[int]:
        """Yield some batches in their order, each once it is final."""
        for batch in batches:
            while batch not in self.keys:
                self.wait()
            self._pace.check()
            yield batch

    def in_any_order(self, needs: Callable[[int], set[int]]) -> Iterator[int]:
        """Yield all batches, each once it is final and those that it needs were yielded."""
        came = np.zeros(self._manifest.batches, np.bool_)
        held = {batch: needs(batch) for batch in self.keys}
        while not came.all():
            for batch in sorted(held):  # what each needs is before it
                if came[list(held[batch])].all():
                    self._pace.check()
                    came[batch] = True
                    del held[batch]
                    yield batch
            if not came.all():
                held |= {batch: needs(batch) for batch in self.wait()}

    def check_unchanged(self) -> None:
        """Check that no batch has gone through other rungs since it was final.

        Raises:
            ChangedError: one has, or Redis does not answer.
        """
        try:
            now = final_shards(self._ledger, self._manifest)
        except RedisError as error:
            raise ChangedError from error
        if any(now.get(batch) != keys for batch, keys in self.keys.items()):
            raise ChangedError


def final_shards(
    ledger: Ledger, manifest: Manifest, known: Flags | None = None
) -> dict[int, list[str]]:
    """Return the batches that have no work left and did not fail, each with its shards' keys.

    Args:
        known: batches that are left out; None: none.
    """
    known = np.zeros(manifest.batches, np.bool_) if known is None else known
    return {
        batch: [shard_key(manifest.job, batch, rung) for rung in rungs]
        for batch, rungs in ledger.batches.settled(manifest, known).items()
    }


class FollowedRows(JobRows):
    """The rows of a job that is under way; a block can be read once its batch is final.

    While the job runs, a store that does not answer is waited for.
    """

    def __init__(
        self, store: Store, ledger: Ledger, manifest: Manifest, pace: Pace, folder: Path
    ) -> None:
        """Wait for the first batch, which tells what the file will have.

        Raises:
            AbandonedError: the file is not wanted any more.
            ChangedError: the job has ended without one.
            UserError: its shard cannot be read.
        """
        self._pace = pace
        self._final = FinalBatches(ledger, manifest, pace)
        self._final.wait()
        #: A checksum of what the rows of each block are called; None: none are announced.
        self._names: list[int] | None = None
        self._bad: dict[int, set[int]] = {}  # the quarantined rows of blocks that have some
        self._patiently(partial(super().__init__, store, manifest, folder, self._final.keys))

    def announced(self) -> Iterator[Embeddings]:
        self._names = []
        return self._announced(self._names)

    def _announced(self, checksums: list[int]) -> Iterator[Embeddings]:
        def named(index: int) -> Embeddings:
            found = None if self._helpers is None else self._helpers.named(index)
            read = partial(named_rows, self._store, self._manifest, index)
            return self._patiently(read) if found is None else found

        for names in bounded_map(named, range(self.blocks), READ_AHEAD):
            self._pace.check()
            checksums.append(checksum_of_names(names))
            yield names

    def begin(self, chosen: Mapping[int, Collection[int]] | None) -> Iterable[int]:
        blocks = self._patiently(partial(super().begin, chosen))
        if self._names is None:
            return self._final.in_order(blocks)
        assert self._fan_out is not None
        needs = self._fan_out.needs
        return self._final.in_any_order(lambda index: self._patiently(partial(needs, index)))

    def block(self, index: int, form: OutputForm) -> Block:
        # What is announced is compared with the checksums of a whole shard.
        manifest = self._manifest
        is_mixed = manifest.copies_of(index) or manifest.reused_of(index)
        with_texts = self._names is None or bool(is_mixed)
        read = partial(self.read, index, form, with_texts=with_texts)
        part, quarantined = self._patiently(read)
        if quarantined:
            self._bad[index] = {bad.row for bad in quarantined}
        return part, quarantined

    def check(self, index: int, part: Embeddings) -> None:
        if self._names is None:
            super().check(index, part)
        elif checksum_of_names(part) != self._names[index]:
            raise another_batch(self._manifest, self._keys[index], part)

    def check_unchanged(self) -> None:
        """Check, at the end, that what was read is what would be read now.

        Raises:
            ChangedError: rows were computed again since.
        """
        self._final.check_unchanged()
        for index, rows in self._bad.items():
            bad = read_quarantine(self._store, self._manifest.job, index)
            if not rows <= {each.row for each in bad}:
                raise ChangedError

    def _patiently(self, action: Callable[[], T]) -> T:
        """Return what an action does, after waiting for the store as long as the job runs."""
        while True:
            ended = self._pace.ended
            try:
                return action()
            except ObjectNotFoundError as error:
                raise ChangedError from error  # rows are computed again
            except StoreError:
                if ended:
                    raise
                self._pace.wait()


def checksum_of_names(part: Embeddings) -> int:
    """Return a checksum of all that is known of rows before they are computed."""
    return hash(tuple(continued(0, part.columns[n], part.checksums.get(n)) for n in NAMES))


def follow(
    store: Store,
    ledger: Ledger,
    manifest: Manifest,
    output: Path,
    pace: Pace,
    *,
    wanted: Wanted,
    before_replacing: Callable[[], None],
    check_room: Callable[[int], None],
) -> Fetched:
    """Write the rows of a job that is under way, as ``fetch`` does those of a finished one.

    A layout that has a place for each row takes batches in the order in which they become final,
    any other one in that of the input.

    Raises:
        AbandonedError: the file is not wanted any more.
        ChangedError: batches failed, or were computed again since they were written.
        UserError: as of ``fetch``.
    """
    rows = FollowedRows(store, ledger, manifest, pace, output.parent)

    def check() -> None:
        rows.check_unchanged()
        before_replacing()
        pace.check()

    return rows.write(output, wanted, before_replacing=check, check_room=check_room)
