"""Staging an input in several processes, with the same result as in one.

The input is cut into pieces of whole records. The processes read, check and hash them, and keep
their records. This one goes through what they found in the order of the input: it numbers the rows,
finds identical ones, and decides where batches end. Then the processes write the batches that are
within their pieces; one that two pieces share is put together here, and written by any of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from common.errors import VirnucproError
from producer.input.batches import NOTHING, BatchSize, Cutter, Stretch
from producer.input.bgzip import PackedRange
from producer.input.identical import NONE, Array, OriginalFinder
from producer.input.pieces import Piece, PieceBlocks
from producer.input.reader import Reader
from producer.input.source import Source
from producer.submission.batch_objects import BatchWriter, ReusedRows, StagedBatch
from producer.submission.piece_work import Done, Order, Parsed, Part, Setup, Whole
from producer.submission.staging_pool import StagingPool, StagingProcess

#: Pieces for each process that are read ahead, and that are being written.
PIECES_AHEAD = 3


class Begin(NamedTuple):
    """The beginning of a source."""

    part: Source


class End(NamedTuple):
    """The end of a source, with what was wrong if it cannot be read any further."""

    error: Exception | None = None


class Reading(NamedTuple):
    """A piece that a process reads."""

    number: int
    piece: Piece
    process: StagingProcess
    parsed: "Future[Parsed]"


@dataclass
class OpenBatch:
    """A batch that several pieces may share."""

    number: int
    first_row: int
    size: BatchSize = NOTHING
    #: What processes encode, and the places of this batch's parts in it.
    parts: list[tuple["Future[list[Done]]", int]] = field(default_factory=list)
    #: Rows, places and digests of the rows of earlier jobs.
    reused: list[tuple[Array, Array, Array]] = field(default_factory=list)


class Staged(NamedTuple):
    """A batch that is being written."""

    written: "Future[Any]"  # what writes it, perhaps with others
    result: Callable[[], StagedBatch]  # waits for it


class ParallelStaging:
    """The staging of one job.

    Args:
        reader: of the input; nothing of it was read yet. It has all counts in the end.
        pieces_of: yields the pieces of a source.
        cutter: of the batches.
        finder: of identical records; None: they are not looked for.
        pool: the processes.
        threads: that put batches together which pieces share.
        writer: of the job's batches; it has the rows of earlier jobs.
    """

    def __init__(
        self,
        setup: Setup,
        reader: Reader,
        pieces_of: Callable[[Source], Iterator[Piece]],
        cutter: Cutter,
        finder: OriginalFinder | None,
        pool: StagingPool,
        threads: ThreadPoolExecutor,
        writer: BatchWriter,
    ) -> None:
        self._setup = setup
        self._reader = reader
        self._pieces_of = pieces_of
        self._cutter = cutter
        self._finder = finder
        self._pool = pool
        self._threads = threads
        self._writer = writer
        self._ahead: deque[Begin | Reading | End] = deque()
        self._writing: deque[Future[Any]] = deque()
        self._staged: deque[Staged] = deque()
        self._open: OpenBatch | None = None
        self._numbers = self._batches = 0  # so far
        self._part = reader.source.parts[0]  # the source of the next piece
        self._lines = 0  # of it before the piece

    def batches(self) -> Iterator[StagedBatch]:
        """Yield the batches in order, once they are written.

        Raises:
            InputError: the input is bad; the error is the reader's own.
            ProcessEndedError: a process was ended.
            StoreError: a batch cannot be written.
        """
        for entry in entries(self._reader.source.parts, self._pieces_of):
            self._make_room()
            yield from self._done()
            self._ahead.append(entry if isinstance(entry, Begin | End) else self._read(entry))
        while self._ahead:
            self._take()
        self._reader.check_end()
        self._close()
        for batch in self._staged:
            yield batch.result()

    def _read(self, piece: Piece) -> Reading:
        """Have a piece read."""
        process, number = self._pool.least_busy(), self._numbers
        self._numbers += 1
        return Reading(number, piece, process, process.parse(number, piece))

    def _make_room(self) -> None:
        """Wait until few pieces are in memory."""
        most = PIECES_AHEAD * len(self._pool)
        while len(self._ahead) >= most:
            self._take()
        while len(self._writing) >= most:
            self._writing.popleft().result()

    def _done(self) -> Iterator[StagedBatch]:
        while self._staged and self._staged[0].written.done():
            yield self._staged.popleft().result()

    def _take(self) -> None:
        """Go on to the next source, or to the records of the next piece."""
        entry, reader = self._ahead.popleft(), self._reader
        if isinstance(entry, Begin):
            reader.begin_part(entry.part)
            self._part, self._lines = entry.part, 0
        elif isinstance(entry, End):
            if isinstance(entry.error, VirnucproError):
                raise entry.error
            if entry.error is not None:
                raise reader.unreadable(entry.error) from entry.error
            reader.end_part()
        else:
            before, parsed = reader.read, entry.parsed.result()
            self._count(entry.piece, parsed)
            if refused := reader.other_molecule(to_the_end=False):
                raise refused
            if reader.problems.count or not len(parsed.rows):
                entry.process.drop(entry.number)
            else:
                self._order(entry, parsed, before)

    def _count(self, piece: Piece, parsed: Parsed) -> None:
        """Add what was found in the next piece to what is known."""
        reader = self._reader
        if parsed.error is not None and isinstance(piece, PackedRange):
            # Where it is damaged, only the whole file tells.
            deque(Reader(self._part, **self._setup.checks).read_part(self._part), maxlen=0)
            raise parsed.error
        if parsed.error is not None or reader.may_decide(parsed.findings):
            for block in reader.readable(iter(PieceBlocks(piece, self._lines))):
                reader.checked(block)
                if refused := reader.other_molecule(to_the_end=False):
                    raise refused
            if parsed.error is not None:  # the file can be read again
                raise parsed.error
        else:
            reader.add_findings(parsed.findings, self._lines)
            reader.ids.add_hashes(parsed.ids)
        self._lines += parsed.lines

    def _order(self, reading: Reading, parsed: Parsed, before: int) -> None:
        """Have the records of a piece written, in batches."""
        rows = before + parsed.rows.astype(np.int64)
        originals = self._originals(rows, parsed)
        known = np.full(len(rows), NONE) if originals is None else originals
        letters, headers = parsed.letters.astype(np.int64), parsed.headers.astype(np.int64)
        stretches = self._cutter.cut(letters, headers, known)
        parts = self._parts(stretches)
        order = reading.process.write(Order(reading.number, before, originals, parts))
        self._writing.append(order)
        for place, (stretch, part) in enumerate(zip(stretches, parts, strict=True)):
            if part.begins:
                self._close()
                self._open = OpenBatch(part.number, int(rows[part.start]))
            assert self._open is not None
            self._open.size = self._open.size.plus(stretch.size)
            self._open.parts.append((order, place))
            if stretch.size.reused:
                assert parsed.digests is not None
                here = reused_in(part, known)
                places = NONE - 1 - known[here]
                self._open.reused.append((rows[here], places, parsed.digests[here]))
            if part.is_whole:
                self._close(order)

    def _originals(self, rows: Array, parsed: Parsed) -> Array | None:
        """Return the originals of rows, as ``Chunk`` has them; None if there are none."""
        originals: Array | None = None
        if self._finder is not None:
            assert parsed.hashes is not None
            originals = self._finder.find_hashes(rows, parsed.hashes)
        if self._writer.earlier is not None:
            assert parsed.digests is not None
            places = self._writer.earlier.find_digests(parsed.digests)
            known = NONE if originals is None else originals
            originals = np.where(places < 0, known, NONE - 1 - places)
        return originals

    def _parts(self, stretches: list[Stretch]) -> list[Part]:
        """Number the batches of stretches; the last one may go on in the next piece."""
        parts = []
        for begins, start, end, _ in stretches:
            self._batches += begins
            is_whole = begins and end < stretches[-1].end
            parts.append(Part(start, end, begins, self._batches - 1, is_whole))
        return parts

    def _close(self, order: "Future[list[Done]] | None" = None) -> None:
        """Have the open batch written, which has all of its records.

        Args:
            order: what writes it as a whole; None: it is put together here.
        """
        batch, self._open = self._open, None
        if batch is None:
            return
        if order is not None and not batch.reused:
            self._staged.append(Staged(order, partial(self._complete, batch)))
            return
        written = self._threads.submit(self._complete, batch)
        self._writing.append(written)
        self._staged.append(Staged(written, written.result))

    def _complete(self, batch: OpenBatch) -> StagedBatch:
        """Have the rest of a batch written, once processes have done their parts."""
        done = [order.result()[place] for order, place in batch.parts]
        checksums = done[0].checksums
        if done[0].records:
            records = b"".join([part.records for part in done])
            copies = b"".join([part.copies for part in done])
            whole = Whole(batch.number, records, copies)
            checksums = self._pool.least_busy().write_whole(whole).result()
        if batch.reused:
            rows, places, digests = map(np.concatenate, zip(*batch.reused, strict=True))
            headers = [header.decode() for part in done for header in part.reused]
            self._writer.write_reused(batch.number, ReusedRows(rows, headers, places, digests))
        return StagedBatch(batch.size, batch.first_row, *checksums)


def entries(
    sources: Iterable[Source], pieces_of: Callable[[Source], Iterator[Piece]]
) -> Iterator[Begin | Piece | End]:
    """Yield the pieces of an input, between the beginnings and ends of its sources.

    An error in reading is the end of a source: what was read before may show another one.
    """
    for part in sources:
        yield Begin(part)
        error: Exception | None = None
        try:
            yield from pieces_of(part)
        except Exception as found:
            error = found
        yield End(error)
        if error is not None:
            return


def reused_in(part: Part, known: Array) -> Array:
    """Return the positions of a part's records that earlier jobs have computed.

    The first of a batch is computed in any case.
    """
    first = part.start + part.begins
    return first + np.flatnonzero(known[first : part.end] < NONE)
