"""Writing blocks of rows to HDF5 in any order; the file is that of the blocks in their order."""

from array import array
from collections import defaultdict

import numpy as np

from common.crc import combined
from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import checksums, continued
from common.embeddings.reader import TEXTS
from common.embeddings.writer import PAIR_OFFSETS, EmbeddingWriter
from common.job.output_form import PAIR_SCORES, RECORD_SCORES, RESIDUE_SCORES, OutputForm

#: What is known of rows before they are computed.
NAMES = ("rows", "ids", "headers", "lengths", "input_lengths")


class PlacedWriter:
    """Writes blocks to their places, once what their rows are called is written in order.

    HDF5 gives datasets and texts room in the order in which they are first written. That order is
    the one of ``EmbeddingWriter.write``: the bytes of the two files are equal.
    """

    def __init__(self, writer: EmbeddingWriter) -> None:
        self._writer = writer
        #: Where the rows, the residues and the pairs of residues of each announced block begin, and
        #: where the last ends.
        self._rows, self._residues, self._pairs = (array("q", [0]) for _ in range(3))
        self._checksums: defaultdict[str, JoinedChecksum] = defaultdict(JoinedChecksum)

    def announce(self, names: Embeddings) -> None:
        """Write what the rows of the next block are called; their vectors come later."""
        writer, file = self._writer, self._writer.file
        is_first, start = len(self._rows) == 1, self._rows[-1]
        end, ends = start + len(names), self._residues[-1] + np.cumsum(names.lengths)
        for name in NAMES:
            write = writer.write_texts if name in TEXTS else writer.write_numbers
            write(name, names.columns[name], start)
        if is_first:
            self._allocate("precision", *of_records(writer.form))
        if writer.form.has_residues:
            file["offsets"][start + 1 : end + 1] = ends
        if is_first:
            self._allocate(*of_residues(writer.form))
        pair_ends = self._pairs[-1] + np.cumsum(names.lengths**2)
        if writer.form.contacts:
            file[PAIR_OFFSETS][start + 1 : end + 1] = pair_ends
            if is_first:
                self._allocate(*of_pairs(writer.form))
        found = checksums(names, writer.checksums)
        writer.checksums = {name: found[name] for name in NAMES}
        self._rows.append(end)
        self._residues.append(int(ends[-1]))
        self._pairs.append(int(pair_ends[-1]))

    def place(self, block: int, part: Embeddings) -> None:
        """Write what was computed of the rows of an announced block.

        Raises:
            ValueError: the block has another number of rows or residues than was announced.
        """
        form, rows, residues = self._writer.form, self._rows, self._residues
        first, letters = rows[block], residues[block]
        if (
            first + len(part) != rows[block + 1]
            or letters + part.lengths.sum() != residues[block + 1]
        ):
            raise ValueError(f"block {block} has another size than was announced")
        starts = {"precision": first} | dict.fromkeys(of_records(form), first)
        starts |= dict.fromkeys(of_residues(form), letters)
        starts |= dict.fromkeys(of_pairs(form), self._pairs[block])
        columns = part.columns | part.ragged
        for name, start in starts.items():
            values = columns[name]
            self._writer.write_numbers(name, values, start)
            crc = continued(0, values, part.checksums.get(name))
            self._checksums[name].add(block, crc, values.nbytes)

    def finish(self) -> None:
        """Leave the checksums of all blocks to the file, after the last one."""
        self._writer.checksums |= {name: found.crc for name, found in self._checksums.items()}

    def _allocate(self, *names: str) -> None:
        for name in names:
            self._writer.place_of(name)


class JoinedChecksum:
    """The CRC-32 of blocks that are written in any order; only those after a gap are kept apart."""

    def __init__(self) -> None:
        self.crc = 0
        self._next = 0
        self._waiting: dict[int, tuple[int, int]] = {}

    def add(self, block: int, crc: int, size: int) -> None:
        self._waiting[block] = crc, size
        while self._next in self._waiting:
            self.crc = combined(self.crc, *self._waiting.pop(self._next))
            self._next += 1


def of_records(form: OutputForm) -> list[str]:
    """Return the datasets of an output form with an entry for each record, in their order."""
    return [*form.pooled_names, *(name for name in form.scores if name in RECORD_SCORES)]


def of_residues(form: OutputForm) -> list[str]:
    """Return the datasets of an output form with an entry for each residue, in their order."""
    scores = [name for name in form.scores if name in RESIDUE_SCORES]
    return ["residues", *scores] if form.per_residue else list(scores)


def of_pairs(form: OutputForm) -> list[str]:
    """Return the datasets of an output form with an entry for each pair of residues."""
    return [name for name in form.scores if name in PAIR_SCORES]
