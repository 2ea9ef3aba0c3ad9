"""The manifest: what a job is. Written last, so a job without one never started."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from common.errors import UserError
from common.layout import input_key, manifest_key
from common.messages import Batch, Priority
from common.rungs import Rung
from common.store import Store

Include = Literal["mean", "per_residue", "bos"]
ResidueDtype = Literal["float16", "float32"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutputForm(Frozen):
    """What is kept of the embeddings."""

    include: tuple[Include, ...] = ("mean",)
    layers: tuple[int, ...] = (-1,)  # negative: counted from the last, as in esm-extract
    residue_dtype: ResidueDtype = "float16"
    max_residues: int  # longer records are cut to this, or into windows of it
    overlap: int | None = None  # letters that two windows share at least; None: no windows

    @field_validator("include", "layers")
    @classmethod
    def something_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{values} names nothing, or something twice")
        return values

    @model_validator(mode="after")
    def windows_can_be_pooled(self) -> Self:
        if self.overlap is not None and self.per_residue:
            raise ValueError(
                "vectors of residues cannot be had from windows, where neighbours overlap: "
                "give --long truncate or error"
            )
        if self.overlap is not None and not 0 <= self.overlap < self.max_residues:
            raise ValueError(
                f"windows of {self.max_residues:,} cannot overlap by {self.overlap:,}: give a "
                "smaller --overlap"
            )
        return self

    def embedded(self, letters: int) -> int:
        """How many letters of a record's count."""
        return min(letters, self.max_residues) if self.overlap is None else letters

    @property
    def pooled_names(self) -> tuple[Include, ...]:
        """The datasets with one row per record."""
        return tuple(name for name in self.include if name != "per_residue")

    @property
    def per_residue(self) -> bool:
        return "per_residue" in self.include


class InputReport(Frozen):
    """What the reader saw."""

    records: int
    residues: int  # that are embedded
    long: int  # records beyond max_residues
    skipped: int
    replaced: int  # records with a letter that became X, or N
    duplicate_ids: int
    looks_like_dna: bool = False  # read as proteins


class Manifest(Frozen):
    version: Literal[1] = 1
    package: str
    job: str
    created: datetime
    input: str
    fingerprint: str  # of the input's bytes and every option that changes the output
    model: str
    alphabet: Literal["protein", "dna"]  # that the records were checked against
    rung: Rung
    priority: Priority = Priority.NORMAL
    form: OutputForm
    report: InputReport
    batch_records: list[int]
    batch_tokens: list[int]

    def batch(self, index: int) -> Batch:
        return Batch(
            job=self.job,
            index=index,
            first=self.rung,
            rung=self.rung,
            model=self.model,
            key=input_key(self.job, index),
            records=self.batch_records[index],
            priority=self.priority,
            created=self.created.timestamp(),
        )

    @property
    def batches(self) -> int:
        return len(self.batch_records)

    @property
    def tokens(self) -> int:
        return sum(self.batch_tokens)


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Declare a job complete: everything it names is in the store for good."""
    store.sync()
    with store.create(manifest_key(manifest.job)) as path:
        path.write_bytes(manifest.model_dump_json(indent=1).encode())


def read_manifest(store: Store, job: str) -> Manifest:
    """Read a job's manifest.

    Raises:
        ObjectNotFoundError: the store has no such job.
        UserError: what is there is no manifest of this version.
    """
    text = store.get(manifest_key(job))
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{store.url}/{manifest_key(job)} is damaged, or of another version of this program: "
            f"delete {store.url}/{job} to begin the job anew."
        ) from error
