"""A simulation of one job alone, from ``producer submit -o`` to its file."""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.costs import FIRST_BATCH_SECONDS, HASH_RATE, MEASURED, STAGING_RATE, TAIL_SECONDS
from workers.transport.consumer import THREADS

#: Assumed relative deviation of a batch's time on a GPU from the average.
SPREAD = 0.1

#: A shared part, or ``GPU``, and the seconds that it needs for a batch.
Step = tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class ProducerCosts:
    """What the command takes that submits a job and writes its file."""

    hash_rate: float = HASH_RATE  # bytes/s of input
    first_batch: float = FIRST_BATCH_SECONDS  # until the first batch is queued, after the hash
    staging_rate: float = STAGING_RATE  # bytes/s of input from then on
    fetch_rate: float = MEASURED.fetch_rate  # bytes/s of shards
    tail: float = TAIL_SECONDS  # after the last shard is in the file


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds from the start of the command."""

    first_queued: float
    staged: float
    computed: float
    written: float


def simulate_job(
    batches: int,
    gpus: int,
    *,
    begin: float,
    staging: Sequence[Step],
    computing: Sequence[Step],
    writing: Sequence[Step],
    tail: float,
    seed: int = 0,
) -> Times:
    """Simulate a job whose batches are queued one by one, computed, and written to the file.

    The producer stages one batch after another. A queued batch is taken by the next of ``THREADS``
    threads of each GPU that has none. From the end of the staging on, the shards that are there
    are written, in the order in which they were done. Each shared part, and each GPU, serves one
    batch at a time, first come, first served.

    Args:
        begin: seconds before the first batch is staged.
        staging: steps of a batch until it is queued, the first of them the producer's.
        computing: its steps in a worker, while it has a thread.
        writing: its steps from the store to the file.
        tail: seconds after the last batch is written.
    """
    draw = random.Random(seed)
    queued_at = len(staging)
    # A step without a part is a moment: the batch is queued, or done.
    steps = [*staging, ("", 0.0), *computing, ("", 0.0), *writing]
    free: defaultdict[str, float] = defaultdict(float)  # the time at which a part is free again
    gpu_free = [0.0] * gpus
    threads = deque(range(gpus * THREADS))  # without a batch; of GPU 0, GPU 1 and so on in turns
    queue: deque[int] = deque()
    early: list[int] = []  # batches that were done before the end of the staging
    queued = 0
    first_queued = staged = computed = written = 0.0
    events = [(begin, 0, 0, 0)]  # time, batch, step, thread
    while events:
        now, batch, step, thread = heapq.heappop(events)
        if step == len(steps):
            written = now
            continue
        part, seconds = steps[step]
        if part == "GPU":
            gpu = thread % gpus
            seconds *= draw.uniform(1 - SPREAD, 1 + SPREAD)
            gpu_free[gpu] = end = max(now, gpu_free[gpu]) + seconds
            heapq.heappush(events, (end, batch, step + 1, thread))
        elif part:
            free[part] = end = max(now, free[part]) + seconds
            heapq.heappush(events, (end, batch, step + 1, thread))
            if step == 0 and batch + 1 < batches:
                heapq.heappush(events, (end, batch + 1, 0, 0))
        elif step == queued_at:
            queue.append(batch)
            queued += 1
            first_queued = first_queued or now
            if queued == batches:
                staged = now
                for other in early:
                    heapq.heappush(events, (now, other, len(steps) - len(writing), 0))
        else:
            computed = now
            threads.append(thread)
            if queued == batches:
                heapq.heappush(events, (now, batch, step + 1, 0))
            else:
                early.append(batch)
        while queue and threads:
            heapq.heappush(events, (now, queue.popleft(), queued_at + 1, threads.popleft()))
    return Times(
        first_queued=first_queued, staged=staged, computed=computed, written=written + tail
    )
