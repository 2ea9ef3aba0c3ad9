"""Writing embeddings to HDF5: a batch's shard, or the file that a user gets.

The form is columnar, one dataset per kind of value with one entry per record: a dataset per record
is slow beyond 10^5 of them. ``docs/formats.md`` describes it for users.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.checksums import CHECKSUM, checksums
from common.embeddings.seal import Label, seal
from common.embeddings.sink import Sink
from common.job.output_form import PAIR_SCORES, RECORD_SCORES, RESIDUE_SCORES, OutputForm
from common.rungs import PRECISION_CODES

#: The HDF5 type of the dataset ``precision``.
PRECISION_TYPE = h5py.enum_dtype(PRECISION_CODES, basetype="u1")

#: The dataset with where the contacts of each row begin.
PAIR_OFFSETS = "contact_offsets"


class Place(NamedTuple):
    """Where a dataset of numbers is in a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class EmbeddingWriter:
    """Appends rows to a file that was created for a known number of them."""

    def __init__(self, file: h5py.File, sink: Sink, form: OutputForm) -> None:
        self.file = file
        self.sink = sink
        self.form = form
        self.rows_written = 0
        self.residues_written = self.pairs_written = 0
        #: The CRC-32 of each dataset's rows so far.
        self.checksums: dict[str, int] = {}
        self._places: dict[str, Place] = {}
        self._texts: dict[str, h5py.Dataset] = {}

    def write(self, part: Embeddings) -> None:
        """Append the rows of ``part``, residues included."""
        here = slice(self.rows_written, self.rows_written + len(part))
        for name, values in part.columns.items():
            if isinstance(values, np.ndarray):
                self.write_numbers(name, values, here.start)
            else:
                self.write_texts(name, values, here.start)
        self.checksums = checksums(part, self.checksums)
        of_residues = part.of_residues
        if of_residues:
            ends = self.residues_written + np.cumsum(part.lengths)
            self.file["offsets"][here.start + 1 : here.stop + 1] = ends
            for name, values in of_residues.items():
                self.write_numbers(name, values, self.residues_written)
            self.residues_written += int(part.lengths.sum())
        if part.of_pairs:
            ends = self.pairs_written + np.cumsum(part.lengths**2)
            self.file[PAIR_OFFSETS][here.start + 1 : here.stop + 1] = ends
            for name, values in part.of_pairs.items():
                self.write_numbers(name, values, self.pairs_written)
            self.pairs_written = int(ends[-1]) if len(ends) else self.pairs_written
        self.rows_written = here.stop

    def write_texts(self, name: str, values: list[str], start: int) -> None:
        """Write texts to their place in the file."""
        if name not in self._texts:
            self._texts[name] = self.file[name]
        self._texts[name][start : start + len(values)] = values

    def write_numbers(self, name: str, values: Array, start: int) -> None:
        """Write numbers to their place in the file without HDF5.

        They are nearly all of the bytes. HDF5 would write them under a lock that all threads of
        the process share, after as many zeros.
        """
        if not len(values):
            return
        place = self.place_of(name)
        values = np.ascontiguousarray(values, place.dtype)
        room = place.shape[0] - start
        if values.shape[1:] != place.shape[1:] or len(values) > room:
            # Written without HDF5, they would overwrite the next dataset.
            raise ValueError(f"{name} {values.shape} do not fit {room} of {place.shape}")
        if values.size:
            self.sink.write_at(place.offset + start * (values.nbytes // len(values)), values)

    def place_of(self, name: str) -> Place:
        """Return where a dataset of numbers is; HDF5 allocates it at its first write."""
        if name not in self._places:
            dataset = self.file[name]
            if dataset.id.get_offset() is None:
                dataset[:1] = 0
            self._places[name] = Place(dataset.id.get_offset(), dataset.shape, dataset.dtype)
        return self._places[name]


@contextmanager
def create_embedding_file(
    path: Path,
    *,
    form: OutputForm,
    records: int,
    residues: int,
    pairs: int = 0,
    dim: int,
    attributes: Mapping[str, Any],
    label: Label | None = None,
    pooled_dtype: str = "float32",
) -> Iterator[EmbeddingWriter]:
    """Create an HDF5 file with room for ``records`` rows and ``residues`` residues.

    Args:
        pairs: sum of the squares of the records' lengths, if contacts are kept.
        label: of a shard, which is sealed with it.
        pooled_dtype: of the vectors of records; of a shard always float32.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    shape = form.vector_shape(dim)
    text = h5py.string_dtype()
    with Sink(path, "w+b") as sink, h5py.File(sink, "w") as file:
        file.attrs.update(attributes)
        file.create_dataset("ids", (records,), text)
        file.create_dataset("headers", (records,), text)
        for name in ("rows", "lengths", "input_lengths"):
            file.create_dataset(name, (records,), np.int64)
        file.create_dataset("precision", (records,), PRECISION_TYPE)
        for name in form.pooled_names:
            create_unfilled(file, name, (records, *shape), np.dtype(pooled_dtype))
        if form.per_residue:
            create_unfilled(file, "residues", (residues, *shape), np.dtype(form.residue_dtype))
        for name in form.scores:
            entries = residues if name in RESIDUE_SCORES else records
            entries = pairs if name in PAIR_SCORES else entries
            dtype = np.dtype(form.score_dtype(name))
            create_unfilled(file, name, (entries, *form.score_shape(name)), dtype)
        # Created here and not at the end, so that all metadata lies before the vectors.
        for dataset in file.values():
            dataset.attrs[CHECKSUM] = np.uint32(0)
        if form.has_residues:
            file.create_dataset("offsets", (records + 1,), np.int64)
        if form.contacts:
            file.create_dataset(PAIR_OFFSETS, (records + 1,), np.int64)
        writer = EmbeddingWriter(file, sink, form)
        yield writer
        for name, crc in writer.checksums.items():
            file[name].attrs.modify(CHECKSUM, np.uint32(crc))
        file.close()
        if label is not None:
            seal(sink, label)
        if sink.error:
            raise sink.error


def create_unfilled(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Create a contiguous dataset that HDF5 does not fill with zeros."""
    plan = timeless()
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, plan)


def timeless() -> "h5py.h5p.PropDCID":
    """Return a plan for a dataset without the time of its creation: equal rows are equal files."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    return plan


def shard_bytes(form: OutputForm, dim: int) -> tuple[int, int]:
    """Return a shard's bytes per record, without its header, and per residue."""
    numbers = len(form.layers) * dim
    per_record = 128 + 4 * numbers * len(form.pooled_names)
    per_residue = numbers * np.dtype(form.residue_dtype).itemsize if form.per_residue else 0
    per_record += score_bytes(form, RECORD_SCORES)
    per_residue += score_bytes(form, RESIDUE_SCORES)
    return per_record, per_residue


def pair_bytes(form: OutputForm) -> int:
    """Return a shard's bytes per pair of a record's residues."""
    return np.dtype(form.residue_dtype).itemsize if form.contacts else 0


def score_bytes(form: OutputForm, kinds: Collection[str]) -> int:
    """Return the bytes of the scores of some kinds, of one record or residue."""
    return sum(4 * math.prod(form.score_shape(name)) for name in form.scores if name in kinds)
