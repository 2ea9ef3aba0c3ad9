"""The rows that earlier jobs of a store have computed, found by the digests of their sequences."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Set
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.bounded_map import bounded_map
from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import DamagedError
from common.embeddings.shards import read_label
from common.errors import NotReadyError, UserError
from common.job.digests import Digests, digests_of
from common.job.inputs import read_input
from common.job.manifest import Manifest, read_manifest
from common.job.reused import read_reused_names
from common.job.shards import shards_of
from common.rungs import PRECISION_CODES
from common.store import ObjectNotFoundError, Store, StoreError
from producer.output.job_shards import attributes_of_job, merged
from producer.submission.request import Request

log = logging.getLogger(__name__)

#: Batches of earlier jobs that stay in memory: the next rows are likely of the same ones.
KEPT_BATCHES = 4

Positions = NDArray[np.int64]  # of rows among all of an index; -1: there is none


class EarlierBatch(NamedTuple):
    """A batch of an earlier job."""

    manifest: Manifest
    number: int
    keys: list[str]  # of its shards, in the ladder's order
    attributes: dict[str, Any]  # that all shards of its job share


class EarlierRows:
    """An index of rows by the digests of their sequences: 32 bytes each, 56 while it is sorted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._batches: list[EarlierBatch] = []
        self._ends: list[int] = []  # the rows up to the last of each batch
        self._digests: list[Digests] = []
        self._rows: list[NDArray[np.int64]] = []
        self._recent: OrderedDict[int, Embeddings] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def attributes(self) -> dict[str, Any]:
        """What all shards share, of the first job; there is one."""
        return self._batches[0].attributes

    def add(self, batch: EarlierBatch, digests: Digests, rows: NDArray[np.int64]) -> None:
        """Add rows of a batch, all of which have vectors."""
        self._batches.append(batch)
        self._ends.append(len(self) + len(rows))
        self._digests.append(digests)
        self._rows.append(rows)

    def sort(self) -> None:
        """Make the rows that were added ready to be found."""
        digests = np.concatenate(self._digests)
        self._order = np.argsort(digests[:, 0], kind="stable")
        self._sorted = digests[self._order]
        self._row_numbers = np.concatenate(self._rows)
        self._digests, self._rows = [], []

    def find(self, sequences: list[str]) -> Positions:
        """Return the position of a row with each sequence ``[n]``; -1: there is none."""
        return self.find_digests(digests_of(sequences))

    def find_digests(self, digests: Digests) -> Positions:
        """Return the position of a row with the digest of each sequence ``[n]``; -1: there is none.

        Of two digests that begin alike and differ, only the first is found: the sequence of the
        other is computed again.
        """
        places = np.searchsorted(self._sorted[:, 0], digests[:, 0])
        places = np.minimum(places, len(self._sorted) - 1)
        found = (self._sorted[places] == digests).all(axis=1)
        return np.where(found, self._order[places], -1)

    def take(self, positions: Positions) -> Embeddings:
        """Return the rows at some positions, in their order, which may occur several times.

        Raises:
            UserError: a shard cannot be read any more.
        """
        batches = np.searchsorted(self._ends, positions, side="right")
        parts, places = [], np.empty(len(positions), np.int64)
        before = 0
        for batch in np.unique(batches).tolist():
            here = np.flatnonzero(batches == batch)
            part = self._read(batch)
            rows = self._row_numbers[positions[here]]
            parts.append(part.take(np.searchsorted(part.rows, rows)))
            places[here] = before + np.arange(len(here))
            before += len(here)
        return Embeddings.joined(parts).take(places)

    def _read(self, number: int) -> Embeddings:
        """Return all rows of a batch."""
        with self._lock:
            if number not in self._recent:
                self._recent[number] = read_batch(self._store, self._batches[number])
                if len(self._recent) > KEPT_BATCHES:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(number)
            return self._recent[number]


def read_batch(store: Store, batch: EarlierBatch) -> Embeddings:
    """Return all rows of a batch.

    Raises:
        StoreError: the store does not answer.
        UserError: a shard is damaged, or the job was deleted meanwhile.
    """
    job = batch.manifest.job
    try:
        found, _ = merged(store, batch.manifest, batch.number, batch.keys, batch.attributes)
    except UserError as error:
        if isinstance(error, StoreError) and not isinstance(error, ObjectNotFoundError):
            raise
        # The error's own advice is about that job, and may name the output of this one.
        raise UserError(
            f"Rows of the earlier job {job} cannot be taken over: its batch {batch.number} is "
            f"damaged or gone ({batch.keys[0]}). Submit the input without --reuse, or have that "
            f"job mended first: producer retry {job} --damaged."
        ) from error
    return found


def earlier_rows(
    store: Store, request: Request, digest: str | None, weights: Set[str]
) -> EarlierRows | None:
    """Find what earlier jobs have computed of a request's model in its output form.

    A row without numbers does not count, nor a batch that is not done, or whose input cannot be
    read. Vectors are read only when they are taken.

    Args:
        digest: of the model's files; None if they are not on this machine.
        weights: fingerprints of the weights that workers of the job's queue have.

    Returns:
        The rows, all of the same weights; None if there are none.

    Raises:
        StoreError: the store does not answer.
    """
    index = EarlierRows(store)
    for manifest in alike(store, request, digest):
        batches = done_batches(store, manifest)
        known = {str(index.attributes["weights"])} if len(index) else weights
        if batches and known and str(batches[0].attributes["weights"]) not in known:
            continue
        found = bounded_map(partial(rows_of, store), batches, max(2, store.parallel_reads))
        for batch, rows in zip(batches, found, strict=True):
            if rows is not None:
                index.add(batch, *rows)
    if not len(index):
        return None
    index.sort()
    return index


def alike(store: Store, request: Request, digest: str | None) -> Iterator[Manifest]:
    """Yield the jobs of a store whose rows, if they have the same weights, are those of a request.

    The newest comes first.
    """
    found = []
    for name in store.folders():
        try:
            manifest = read_manifest(store, name)
        except ObjectNotFoundError:
            continue
        except StoreError:
            raise
        except UserError as error:
            log.warning("Rows of %s/%s are not used again: %s", store.url, name, error)
            continue
        same = (manifest.alphabet, manifest.rung, manifest.form) == (
            request.alphabet.name,
            request.rung,
            request.form,
        )
        if same and has_same_model(manifest, request, digest):
            found.append(manifest)
    return iter(sorted(found, key=lambda each: each.created, reverse=True))


def has_same_model(manifest: Manifest, request: Request, digest: str | None) -> bool:
    """Return whether a job is of a request's model, as far as its files tell."""
    if manifest.model_digest is not None and digest is not None:
        return manifest.model_digest == digest
    return manifest.model == request.model.text


def done_batches(store: Store, manifest: Manifest) -> list[EarlierBatch]:
    """Return the batches of a job that have shards; none, if no shard can be read."""
    shards = {
        index: [key for _, key in found] for index, found in shards_of(store, manifest).items()
    }
    if not shards:
        return []
    try:
        attributes = attributes_of_job(store, manifest, shards)
    except StoreError:
        raise
    except UserError as error:
        log.warning("Rows of %s/%s are not used again: %s", store.url, manifest.job, error)
        return []
    return [EarlierBatch(manifest, index, shards[index], attributes) for index in sorted(shards)]


def rows_of(store: Store, batch: EarlierBatch) -> tuple[Digests, NDArray[np.int64]] | None:
    """Return the digests and rows of a batch that have vectors; None, if none has, or can be read.

    Raises:
        StoreError: the store does not answer.
    """
    manifest, number = batch.manifest, batch.number
    try:
        records = read_input(store, manifest, number)
        digests = [digests_of(record.residues for record in records)]
        rows = [np.array([record.row for record in records], np.int64)]
        if manifest.reused_of(number):
            reused = read_reused_names(store, manifest, number)
            digests.append(reused.digests)
            rows.append(reused.rows)
        usable = have_vectors(store, batch, np.concatenate(rows))
    except NotReadyError:
        return None  # some of its rows wait for a higher rung
    except (UserError, DamagedError) as error:
        if isinstance(error, StoreError) and not isinstance(error, ObjectNotFoundError):
            raise
        log.warning("Rows of %s/%s are not used again: %s", store.url, manifest.job, error)
        return None
    if not usable.any():  # the attributes of its job are no others' either
        return None
    return np.concatenate(digests)[usable], np.concatenate(rows)[usable]


def have_vectors(store: Store, batch: EarlierBatch, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows of a batch have vectors. If its first shard has all, it is not read."""
    manifest = batch.manifest
    label = read_label(store, batch.keys[0])
    if label.records == manifest.batch_records[batch.number]:
        return np.ones(len(rows), np.bool_)
    whole, _ = merged(store, manifest, batch.number, batch.keys, batch.attributes)
    return np.isin(rows, whole.rows[whole.precision != PRECISION_CODES["none"]])
