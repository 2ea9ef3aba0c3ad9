"""What the check of an input found, which ``producer check --json`` prints.

``docs/formats.md`` describes each field. Fields may be added, never renamed or removed.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat

from common.job.records import SHOWN
from producer.input.problems import Kind, Problem
from producer.submission.staged_manifest import as_text


class Part(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(frozen=True)

    def text(self) -> str:
        """Return the document as JSON in one line."""
        return self.model_dump_json()


class CheckedSource(Part):
    """A file of an input."""

    name: str
    records: int


class BadRecord(Part):
    """A record for which an input is refused."""

    source: str
    place: str  # such as "line 7": that of the letter
    record: int  # in its source, from 1
    header: str
    kind: Kind
    problem: str
    advice: str

    @classmethod
    def of(cls, problem: Problem) -> "BadRecord":
        return cls(
            source=as_text(problem.source.shown),
            place=problem.place,
            record=problem.number,
            header=problem.header[:SHOWN],
            kind=problem.kind,
            problem=problem.what,
            advice=problem.advice,
        )


class LengthBin(Part):
    """The records of some lengths."""

    shortest: int
    longest: int
    records: int


class Bench(Part):
    """What ``worker bench --json`` says of a machine."""

    machine: str
    model: str
    precision: str
    gpus: int
    worker: PositiveFloat  # tokens per second of all GPUs together, store to store


class ComputingTime(Part):
    """How long an input takes on the machine of a bench."""

    machine: str
    precision: str
    tokens_per_second: float  # of one device
    device_hours: float


class InputCheck(Part):
    """What an input holds, and what would become of it.

    ``records`` is the sum of ``rows``, of those that are left out (``skipped``, ``empty`` and
    ``short``), and of the bad ones, for which a submission is refused.
    """

    accepted: bool
    refusals: tuple[str, ...]  # reasons beside bad records
    warnings: tuple[str, ...]  # why all embeddings may be useless, as submit says it
    model: str
    molecule: Literal["protein", "dna", "rna"]
    sources: tuple[CheckedSource, ...]
    records: int
    rows: int
    skipped: int
    empty: int
    short: int
    bad: dict[str, int]
    bad_records: tuple[BadRecord, ...]  # the first twenty
    replaced: int
    rna: int
    like_dna: int
    gapped: int
    gaps: int
    letters: dict[str, int]
    lower_case: int
    shortest: int
    longest: int
    mean_length: float
    lengths: tuple[LengthBin, ...]
    duplicate_ids: int
    duplicate_sequences: int
    computed: int
    long: int
    letters_lost: int
    windows: int
    residues: int
    tokens: int
    batches: int
    output_bytes: int | None
    time: ComputingTime | None
