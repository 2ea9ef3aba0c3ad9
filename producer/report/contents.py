"""What a report says, before it is a page."""

from dataclasses import dataclass

from common.embeddings.arrays import Array


@dataclass(frozen=True)
class Colour:
    """What points can be coloured by: a number each, or one of several texts."""

    name: str
    #: float32 ``[n]``, NaN where it is not known; or int32 ``[n]``, places in ``names``.
    values: Array
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Projection:
    """A map of the points, in two dimensions."""

    name: str
    coordinates: Array  # float32 [n, 2]
    titles: tuple[str, str]  # of the axes


@dataclass(frozen=True)
class Points:
    """The rows that the map shows."""

    ids: list[str]
    headers: list[str]  # cut
    lengths: Array  # int32 [n]
    projections: tuple[Projection, ...]
    colours: tuple[Colour, ...]
    shown: int = 0  # the colour that is chosen first


@dataclass(frozen=True)
class Histogram:
    """How many there are in each bin; a bin is from one edge up to the next."""

    edges: Array  # [b + 1]
    counts: Array  # [b]


@dataclass(frozen=True)
class Ladder:
    """What was computed at one rung."""

    rung: str
    shards: int
    rows: int
    tokens: int


@dataclass(frozen=True)
class Worker:
    """What one worker did of a job."""

    name: str
    batches: int
    tokens: int
    device_seconds: float
    rates: Array  # tokens per second in each bin of time, float64 [b]


@dataclass(frozen=True)
class Timeline:
    """Throughput by worker over time, as far as shards record it."""

    edges: Array  # seconds since the epoch, float64 [b + 1]
    workers: tuple[Worker, ...]  # those with the most tokens first
    shards: int
    recorded: int  # shards that do


@dataclass(frozen=True)
class Unstable:
    """A row without an embedding, and why."""

    row: int
    id: str
    length: int
    why: str


@dataclass(frozen=True)
class Incident:
    """An event of the job's ledger."""

    time: str
    event: str
    batch: str
    rung: str
    worker: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a job was computed."""

    batch_tokens: Histogram
    ladder: tuple[Ladder, ...]
    timeline: Timeline | None  # None: no shard records it
    unstable: int
    unstable_shown: tuple[Unstable, ...]
    #: Why the ledger was not asked, or does not know the job; empty if it told.
    no_ledger: str = ""
    leases_lost: int = 0
    rows_retried: int = 0
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report says."""

    subject: str  # the job, or the file's name
    job: str  # the job, or the one that the file is of; may be empty
    facts: tuple[tuple[str, str], ...]  # in one line under the title
    cards: tuple[tuple[str, str], ...]  # a number, and what it counts
    warnings: tuple[str, ...]  # what the reader must know first
    notes: tuple[str, ...]  # what was changed of the input
    letters: str  # residues, bases or letters
    lengths: Histogram | None
    precisions: tuple[tuple[str, int], ...]
    points: Points | None
    map_notes: tuple[str, ...] = ()
    run: Run | None = None  # of a file, that is not known
    version: str
