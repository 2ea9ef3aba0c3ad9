"""A joint job: several models over one input. Each model's part is a job of its own."""

import re
from datetime import datetime
from typing import Literal

from pydantic import NonNegativeInt

from common.errors import UserError
from common.job import sealed
from common.store import ObjectNotFoundError, Store
from common.wire.messages import Document, JobName

#: The end of a joint job's name: a hash, as other jobs have it, and a word that none of them has.
JOINT_NAME = re.compile(r".+-[0-9a-f]{12}-all")


class FramesReport(Document):
    """The counts of a translation: what became of the contigs of an input."""

    kind: Literal["six-frame", "orfs"]
    chunk: int | None  # bases; None: contigs are translated whole
    code: int  # NCBI's number of the genetic code
    min_frame: int  # amino acids
    contigs: NonNegativeInt
    bases: NonNegativeInt
    chunks: NonNegativeInt
    frames: NonNegativeInt
    chunks_without_frame: NonNegativeInt
    contigs_without_frame: NonNegativeInt


class Member(Document):
    """One model of a joint job."""

    job: JobName
    model: str


class JointManifest(Document):
    """The description of a joint job. It is written once all of its jobs are queued."""

    version: Literal[1] = 1
    package: str
    job: JobName
    created: datetime
    input: str
    members: tuple[Member, ...]
    frames: FramesReport | None = None  # None: records were embedded as they are


def is_joint(job: str) -> bool:
    """Return whether a name is that of a joint job."""
    return JOINT_NAME.fullmatch(job) is not None


def joint_key(job: str) -> str:
    return f"{job}/joint.json"


def write_joint(store: Store, manifest: JointManifest) -> None:
    store.put(joint_key(manifest.job), sealed.dump(manifest))


def read_joint(store: Store, job: str) -> JointManifest:
    """Read the description of a joint job.

    Raises:
        ObjectNotFoundError: the store has no such job.
        UserError: the object is damaged.
    """
    try:
        return sealed.parse(JointManifest, store.get(joint_key(job)))
    except ValueError as error:
        raise UserError(
            f"{store.url}/{joint_key(job)} is damaged, or of another version of this program: "
            "submit the input again with the same options, which computes nothing twice."
        ) from error


def find_joint(store: Store, job: str) -> JointManifest | None:
    """Return the description of a joint job; None if the store has no such job."""
    try:
        return read_joint(store, job)
    except ObjectNotFoundError:
        store.check_exists()
        return None
