"""The manifest, which describes a job. It is written last: a job without one never started."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from common.embeddings.origins import Origins
from common.errors import UserError
from common.job import sealed
from common.job.layout import copies_key, input_key, manifest_key, reused_key
from common.job.output_form import OutputForm
from common.rungs import Rung
from common.store import ObjectNotFoundError, Store
from common.wire.messages import Batch, Document, JobName, Priority


class InputReport(Document):
    """Counts from reading the input."""

    records: int
    residues: int  # those that are embedded
    long: int  # records longer than max_residues
    skipped: int  # for a letter that is not in the alphabet
    replaced: int  # records with a letter that became X, or N
    duplicate_ids: int
    looks_like_dna: bool = False  # most records do, though read as proteins
    like_dna: int = 0  # records that do
    gapped: int = 0  # records with gaps that were kept
    stripped: int = 0  # records with gaps that were removed
    rna: int = 0  # records of RNA read as DNA: T for U
    empty: int = 0  # records without a sequence, which were skipped
    identical: int = 0  # records that are identical to an earlier one: they are not computed
    reused: int = 0  # records that an earlier job had computed
    short: int = 0  # records shorter than min_length, which were skipped
    pairs: int = 0  # pairs of each record's residues, of a job with contacts
    #: What the records were read as. Jobs of earlier versions do not say.
    molecule: Literal["", "protein", "dna", "rna"] = ""

    @property
    def left_out(self) -> int:
        """The number of records that were read but have no row."""
        return self.skipped + self.empty + self.short

    def attributes(self) -> dict[str, int | str]:
        """Return what an output says of its input.

        That is the molecule, and counts of records that were changed or left out, or look wrong.
        """
        names = (
            *("long", "skipped", "empty", "short", "replaced", "gapped", "stripped", "rna"),
            *("like_dna", "identical", "reused"),
        )
        counts = {f"records_{name}": count for name in names if (count := getattr(self, name))}
        return counts | ({"molecule": self.molecule} if self.molecule else {})


class SourceRecords(Document):
    """One of several sources that a job was read from, in their order."""

    name: str
    records: NonNegativeInt  # read from it, those that were skipped among them


def checksums_text(checksums: Iterable[int]) -> str:
    """Return the CRC-32 of each object as ``Manifest.input_crc32`` has them."""
    return "".join(f"{checksum:08x}" for checksum in checksums)


class Manifest(Document):
    """The description of one job: its input, model, options and batches."""

    version: Literal[1] = 1
    package: str
    job: JobName
    created: datetime  # in Redis's time
    #: The random name of the staging, which its input objects have in their keys. Jobs of earlier
    #: versions have none.
    staging: Annotated[str, Field(pattern="^[0-9a-f]*$")] = ""
    #: Who submitted the job, such as ``ada@host``. Jobs of earlier versions have nobody.
    owner: str = ""
    input: str
    #: The sources, if there are several. Rows count all records: those of the first source come
    #: first. Jobs of one source, and of earlier versions, have none here.
    sources: tuple[SourceRecords, ...] = ()
    fingerprint: str  # of the input's bytes and every option that changes the output
    input_fingerprint: str = ""  # of the input's bytes alone
    model: str
    #: The digest of the model's files, of a path that the producer could see. Jobs of earlier
    #: versions have none.
    model_digest: str | None = None
    alphabet: Literal["protein", "dna"]  # the records were checked against it
    rung: Rung
    priority: Priority = Priority.NORMAL
    form: OutputForm
    report: InputReport
    batch_records: list[PositiveInt]  # that are computed
    batch_tokens: list[PositiveInt]
    #: The CRC-32 of each batch's input object, in 8 hexadecimal digits. Jobs of earlier versions
    #: have none.
    input_crc32: str = ""
    #: The number of copies of each batch: its rows that are identical to an earlier one, and are
    #: in an object of their own. A job without any has neither these nor the next two.
    batch_copies: list[NonNegativeInt] = Field(default_factory=list)
    #: The CRC-32 of each batch's copies, like those of the input objects; of none it is 0.
    copies_crc32: str = ""
    #: The first row of each batch, which is computed.
    batch_rows: list[NonNegativeInt] = Field(default_factory=list)
    #: The number of rows of each batch whose vectors were taken over from an earlier job, and are
    #: in an object of this one. A job without any has neither these nor their weights.
    batch_reused: list[NonNegativeInt] = Field(default_factory=list)
    #: The fingerprint of the weights that they were computed with.
    reused_weights: str = ""

    @model_validator(mode="after")
    def counts_agree(self) -> Self:
        report, copies = self.report, sum(self.batch_copies)
        lengths = {len(self.batch_tokens), len(self.input_crc32) // 8 or self.batches}
        if self.batch_copies:
            of_copies = self.batch_copies, self.batch_rows, self.copies_crc32[::8]
            lengths |= set(map(len, of_copies))
        if self.batch_reused:
            lengths.add(len(self.batch_reused))
        elsewhere = copies + sum(self.batch_reused)
        if lengths != {self.batches} or sum(self.batch_records) + elsewhere != report.records:
            raise ValueError("the numbers of its batches do not agree")
        read = report.records + report.left_out
        if self.sources and sum(source.records for source in self.sources) != read:
            raise ValueError("the numbers of its sources do not agree")
        return self

    @model_serializer(mode="wrap")
    def as_before(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return what is written: what earlier versions wrote, but for what a job does not have."""
        written: dict[str, Any] = fields(self)
        if not self.form.contacts:
            written["report"].pop("pairs")
        if not self.batch_reused:
            written["report"].pop("reused")
            for name in ("batch_reused", "reused_weights"):
                written.pop(name)
        if not self.batch_copies:
            written["report"].pop("identical")
            for name in ("batch_copies", "copies_crc32", "batch_rows"):
                written.pop(name)
        return written

    def batch(self, index: int) -> Batch:
        """Return a batch of the job at its first rung."""
        return Batch(
            job=self.job,
            index=index,
            first_rung=self.rung,
            rung=self.rung,
            model=self.model,
            key=self.input_key(index),
            records=self.batch_records[index],
            tokens=self.batch_tokens[index],
            priority=self.priority,
            created=self.created.timestamp(),
        )

    def with_priority(self, priority: Priority) -> Self:
        """Return this manifest with the priority that the job has now."""
        return self if priority is self.priority else self.model_copy(update={"priority": priority})

    def input_key(self, index: int) -> str:
        return input_key(self.job, index, self.staging)

    def input_checksum(self, index: int) -> str:
        """Return the checksum of a batch's input object; "" for a job of an earlier version."""
        return self.input_crc32[8 * index : 8 * index + 8]

    def copies_of(self, index: int) -> int:
        """Return the number of a batch's copies."""
        return self.batch_copies[index] if self.batch_copies else 0

    def rows_of(self, index: int) -> int:
        """Return the number of all rows of a batch."""
        return self.batch_records[index] + self.copies_of(index) + self.reused_of(index)

    def reused_of(self, index: int) -> int:
        """Return the number of a batch's rows that were taken over from an earlier job."""
        return self.batch_reused[index] if self.batch_reused else 0

    def reused_key(self, index: int) -> str:
        return reused_key(self.job, index, self.staging)

    def copies_key(self, index: int) -> str:
        return copies_key(self.job, index, self.staging)

    def copies_checksum(self, index: int) -> str:
        """Return the checksum of a batch's copies."""
        return self.copies_crc32[8 * index : 8 * index + 8]

    def batch_of(self, row: int) -> int:
        """Return the batch that has a row, of a job with copies."""
        return bisect_right(self.batch_rows, row) - 1

    @property
    def computed(self) -> int:
        """The number of records that are computed."""
        return sum(self.batch_records)

    @property
    def inputs(self) -> list[str]:
        """The names of all sources that the job was read from."""
        return [source.name for source in self.sources] or [self.input]

    @property
    def origins(self) -> Origins | None:
        """Where each row comes from; None if there is one source."""
        return Origins.of((source.name, source.records) for source in self.sources)

    @property
    def batches(self) -> int:
        return len(self.batch_records)

    @property
    def tokens(self) -> int:
        return sum(self.batch_tokens)


def write_manifest(store: Store, manifest: Manifest, *, replace: bool = True) -> None:
    """Write a job's manifest, once everything it names is durable in the store.

    Raises:
        ObjectExistsError: ``replace`` is false and the job has one, perhaps this one: see
            ``Store.create``.
    """
    store.sync()
    with store.create(manifest_key(manifest.job), replace=replace) as path:
        path.write_bytes(sealed.dump(manifest))


def read_manifest(store: Store, job: str) -> Manifest:
    """Read a job's manifest.

    Raises:
        ObjectNotFoundError: the store has no such job.
        UserError: the object is damaged, not a manifest of this version, or another job's.
    """
    data = store.get(manifest_key(job))
    try:
        manifest = sealed.parse(Manifest, data)
    except ValueError as error:
        raise UserError(
            f"{store.url}/{manifest_key(job)} is damaged, or of another version of this program: "
            f"update this one, or delete {store.url}/{job} and submit the input again."
        ) from error
    if manifest.job != job:
        raise UserError(
            f"{store.url}/{manifest_key(job)} is of job {manifest.job}: a job's folder cannot be "
            f"copied under another name. Rename it to {manifest.job}, or delete it."
        )
    return manifest


def find_job(store: Store, job: str) -> Manifest | None:
    """Return a job's manifest; None if the store has no such job."""
    try:
        return read_manifest(store, job)
    except ObjectNotFoundError:
        store.check_exists()
        return None
