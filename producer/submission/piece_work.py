"""What a process does that stages pieces of an input: reading and checking, and writing batches."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from common.alphabet import ALPHABETS
from common.bounded_map import bounded_map
from common.errors import InputError
from common.job.copy_lines import encode_copy_rows
from common.job.digests import digests_of_encoded
from common.job.records import encode_rows
from common.store import Store, open_store
from producer.input.checks import Findings
from producer.input.duplicates import DuplicateCounter
from producer.input.identical import NONE, Array, hashes_of
from producer.input.packed import Packed, joined, read_packed
from producer.input.pieces import Piece
from producer.input.reader import Reader
from producer.input.source import Source
from producer.submission.input_objects import write_batch

#: Seconds after which a process asks again whether it still may write.
KEPT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a process has to know of a job."""

    source: Source  # any of the input
    checks: dict[str, Any]  # the options of its reader
    store: str  # its URL
    job: str
    staging: str
    id_seed: int  # of the hashes of ids
    letter_seed: int | None  # of the hashes of letters; None: none are needed
    digests: bool  # whether digests of the letters are needed


class Parse(NamedTuple):
    """The message that a piece is to be read; see ``PieceWork``."""

    number: int
    piece: Piece


class Parsed(NamedTuple):
    """What is known of the records of a piece, which stay in the process that has read them."""

    findings: Findings
    lines: int  # before the next piece, from the piece's beginning
    ids: bytes  # hashes; see DuplicateCounter
    rows: Array  # of the good records, from the piece's beginning
    letters: Array  # of each of them; these three as narrow as they can be
    headers: Array  # letters of its header
    hashes: Array | None  # of its letters ``[n, 2]``
    digests: Array | None  # of its letters ``[n, 2]``
    #: Why no more can be read, as far as the piece alone tells: without its place in the file.
    error: InputError | None


class Part(NamedTuple):
    """Consecutive records of a piece that are of the same batch."""

    start: int
    end: int
    begins: bool  # whether the batch begins with them
    number: int  # of the batch
    is_whole: bool  # whether they are all of it: then it is written


class Order(NamedTuple):
    """What becomes of the records of a piece."""

    piece: int
    before: int  # rows before the piece
    originals: Array | None  # as Chunk has them; None: no record has one
    parts: list[Part]


class Drop(NamedTuple):
    """The message that the records of a piece are not needed."""

    piece: int


class Whole(NamedTuple):
    """The message that a batch that pieces share is to be written; see ``Done``."""

    number: int
    records: bytes
    copies: bytes


class Done(NamedTuple):
    """What became of a part."""

    records: bytes  # as the input object has them; empty if that was written
    copies: bytes  # the same
    reused: list[bytes]  # headers of records that earlier jobs have computed
    checksums: tuple[int, int] = (0, 0)  # of the objects that were written


class Keep:
    """The question whether batches still may be written; the answer is None."""


class Failed(NamedTuple):
    """The answer that there was an error."""

    error: BaseException


class PieceWork:
    """The work of one process.

    Args:
        keep: called before batches are written, if the last call was some time ago; raises if they
            must not be.
    """

    def __init__(self, setup: Setup, keep: Callable[[], None]) -> None:
        # What is pickled is equal to an alphabet, but the checks ask for the very same.
        alphabet = ALPHABETS[setup.checks["alphabet"].name]
        self._checks = setup.checks | {"alphabet": alphabet}
        self._setup = setup
        self._store: Store = open_store(setup.store)
        self._keep = keep
        self._kept = float("-inf")
        self._records: dict[int, Packed] = {}

    def parse(self, number: int, piece: Piece) -> Parsed:
        """Read the records of a piece, and keep them."""
        setup = self._setup
        reader = Reader(setup.source, **self._checks)
        reader.ids = DuplicateCounter(seed=setup.id_seed)
        reader.begin_part(setup.source)
        found: list[Packed] = []
        error: InputError | None = None
        lines = 0
        try:
            found, lines = read_packed(piece, reader)
        except InputError as problem:
            error = problem
        except Exception as problem:  # each way of compression has errors of its own
            error = reader.unreadable(problem)
        records = self._records[number] = joined(found)
        seed = setup.letter_seed
        return Parsed(
            reader.findings(),
            lines,
            reader.ids.recent,
            narrow(records.rows),
            narrow(records.letters),
            narrow(records.header_letters),
            None if seed is None else hashes_of(records.sequences, seed),
            digests_of_encoded(records.sequences) if setup.digests else None,
            error,
        )

    def drop(self, piece: int) -> None:
        """Forget the records of a piece: nothing is written any more."""
        self._records.pop(piece, None)

    def write(self, order: Order) -> list[Done]:
        """Write the batches that are in a piece as a whole, and encode the parts of others.

        Raises:
            StoreError: they cannot be written.
        """
        records = self._records.pop(order.piece)

        def encoded() -> Iterator[tuple[Part, Done]]:
            for part in order.parts:
                self._keep_on()
                yield part, encoded_part(records, order, part)

        if self._store.parallel_writes == 1:  # a thread would only take turns with this one
            return list(map(self._written, encoded()))
        return list(bounded_map(self._written, encoded(), self._store.parallel_writes))

    def _keep_on(self) -> None:
        # Not the monotonic clock, which stops while a laptop sleeps.
        if abs(time.time() - self._kept) >= KEPT_SECONDS:
            self._keep()
            self._kept = time.time()

    def _written(self, found: tuple[Part, Done]) -> Done:
        part, encoded = found
        if not part.is_whole:
            return encoded
        batch = Whole(part.number, encoded.records, encoded.copies)
        return Done(b"", b"", encoded.reused, self._put(batch))

    def write_whole(self, batch: Whole) -> tuple[int, int]:
        """Write the objects of a batch; return their checksums.

        Raises:
            StoreError: they cannot be written.
        """
        self._keep_on()
        return self._put(batch)

    def _put(self, batch: Whole) -> tuple[int, int]:
        return write_batch(self._store, self._setup.job, self._setup.staging, *batch)


def narrow(numbers: Array) -> Array:
    """Return numbers of 0 or more with as few bytes as the largest one needs."""
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))


def encoded_part(records: Packed, order: Order, part: Part) -> Done:
    """Return a part of a batch as its objects have it."""
    place = slice(part.start, part.end)
    rows = (order.before + records.rows[place]).tolist()
    headers, sequences = records.headers[place], records.sequences[place]
    if order.originals is None:
        return Done(encode_rows(rows, headers, sequences), b"", [])
    originals = order.originals[place]
    computed = originals == NONE
    if part.begins:
        computed[0] = True  # as it is in any case
    copies, reused = ~computed & (originals >= 0), ~computed & (originals < NONE)
    letters = records.letters[place][copies].tolist()
    return Done(
        encode_rows(*(list(compress(field, computed)) for field in (rows, headers, sequences))),
        encode_copy_rows(
            zip(
                compress(rows, copies),
                originals[copies].tolist(),
                letters,
                compress(headers, copies),
                strict=True,
            )
        ),
        list(compress(headers, reused)),
    )
