"""The batches of an input, written in this process or, of a large input, in several."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from common.cpus import usable_cpus
from common.job.records import Record
from common.model_specs import ModelSpec
from common.store import FileStore, S3Store, Store
from producer.input.batches import Budget, Cutter, cut_batches
from producer.input.identical import (
    LARGE_BITS,
    Chunk,
    OriginalFinder,
    with_earlier,
    with_originals,
    without_originals,
)
from producer.input.pieces import Pieces
from producer.input.reader import Reader
from producer.input.sources import AnySource
from producer.submission.batch_objects import BatchWriter, StagedBatch, cycle_collection_off
from producer.submission.earlier import EarlierRows
from producer.submission.request import Request, checks_of

#: Bytes of FASTA from which on several processes stage an input: with fewer, they would hardly have
#: started before one is done.
LARGE_BYTES = 128 * 10**6

#: The most processes: the one that goes through what they found has no time for more.
MOST_PROCESSES = 8

#: The most bytes of a batch with rows of earlier jobs, which are in memory several times.
MAX_REUSED_BYTES = 64 * 10**6


def staged_batches(
    store: Store,
    request: Request,
    job: str,
    staging: str,
    reader: Reader,
    *,
    budget: Budget,
    spec: ModelSpec,
    earlier: EarlierRows | None,
    keep: Callable[[], None],
    processes: int | None,
) -> Generator[StagedBatch, None, None]:
    """Write the objects of an input's batches; yield the batches in order, once they are written.

    Args:
        reader: of the input; nothing of it was read yet. It has all counts in the end.
        keep: called before batches are written; raises if they must not be.
        processes: that stage it; None: as many as its size and the CPUs give.

    Raises:
        UserError: a record is bad, or the store cannot be written.
    """
    pieces = Pieces(request.source, request.columns)
    if type(store) not in (FileStore, S3Store):
        processes = 1  # others could not open it
    elif processes is None:
        processes = processes_for(request.source, pieces)
    if earlier is not None:
        budget = replace(budget, shard_bytes=min(budget.shard_bytes, MAX_REUSED_BYTES))
    writer = BatchWriter(store, request, job, staging, earlier, keep)
    if processes == 1:
        reader.blocks_of = pieces.blocks_of
        chunks = chunks_of(request, reader)
        if earlier is not None:
            chunks = with_earlier(chunks, earlier.find)
        yield from writer.write_all(cut_batches(chunks, budget, request.form, spec))
        return
    # A small input needs none of them, and they take a while.
    from producer.submission.parallel_staging import ParallelStaging
    from producer.submission.piece_work import Setup
    from producer.submission.staging_pool import StagingPool

    finder = OriginalFinder(bits=LARGE_BITS) if request.dedup else None
    setup = Setup(
        source=request.source.parts[0],
        checks=checks_of(request),
        store=store.url,
        job=job,
        staging=staging,
        id_seed=reader.ids.seed,
        letter_seed=None if finder is None else finder.seed,
        digests=earlier is not None,
    )
    cutter = Cutter(budget, request.form, spec)
    with (
        ThreadPoolExecutor(max(2, store.parallel_writes)) as threads,
        StagingPool(setup, processes, keep) as pool,
        cycle_collection_off(),
    ):
        parallel = ParallelStaging(setup, reader, pieces.of, cutter, finder, pool, threads, writer)
        yield from parallel.batches()


def chunks_of(request: Request, records: Iterable[Record]) -> Iterator[Chunk]:
    """Yield a request's records, with the originals of those that are not computed."""
    return with_originals(records) if request.dedup else without_originals(records)


def processes_for(source: AnySource, pieces: Pieces) -> int:
    """Return the number of processes that an input is large enough for."""
    processes = min(int(usable_cpus()), MOST_PROCESSES)
    if processes < 2:
        return 1
    known = [part.estimated_bytes() for part in source.parts]
    if known[0] is None:
        known[0] = pieces.read_ahead(LARGE_BYTES)
    return processes if sum(size or 0 for size in known) >= LARGE_BYTES else 1
