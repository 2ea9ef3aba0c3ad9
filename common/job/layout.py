"""The keys of a job's objects in the store. Every key is a function of (job, batch, rung).

The staging is part of the keys of inputs and copies too: a producer that wakes up late writes only
its own. Jobs of versions that had no name for it have "".
"""

from common.rungs import Rung


def job_prefix(job: str) -> str:
    return f"{job}/"


def manifest_key(job: str) -> str:
    return f"{job}/manifest.json"


def opening_key(job: str) -> str:
    return f"{job}/opening.json"


def closed_key(job: str) -> str:
    return f"{job}/closed.json"


def priority_key(job: str) -> str:
    return f"{job}/priority.json"


def input_prefix(job: str, staging: str = "") -> str:
    return f"{job}/input/{staging}/" if staging else f"{job}/input/"


def input_key(job: str, batch: int, staging: str = "") -> str:
    return f"{input_prefix(job, staging)}{batch:07d}.fasta"


def copies_prefix(job: str, staging: str = "") -> str:
    return f"{job}/copies/{staging}/" if staging else f"{job}/copies/"


def copies_key(job: str, batch: int, staging: str = "") -> str:
    return f"{copies_prefix(job, staging)}{batch:07d}.tsv"


def reused_prefix(job: str, staging: str = "") -> str:
    return f"{job}/reused/{staging}/" if staging else f"{job}/reused/"


def reused_key(job: str, batch: int, staging: str = "") -> str:
    return f"{reused_prefix(job, staging)}{batch:07d}.h5"


def output_prefix(job: str) -> str:
    return f"{job}/output/"


def shard_key(job: str, batch: int, rung: Rung) -> str:
    return f"{job}/output/{batch:07d}.{rung}.h5"


def quarantine_prefix(job: str) -> str:
    return f"{job}/quarantine/"


def quarantine_key(job: str, batch: int) -> str:
    return f"{job}/quarantine/{batch:07d}.json"


def parse_shard_key(key: str) -> tuple[int, Rung]:
    """Return the batch and rung of a key that ``shard_key`` made.

    Raises:
        ValueError: the key does not have that form.
    """
    batch, rung, _ = key.rsplit("/", 1)[-1].split(".")
    return int(batch), Rung(rung)
