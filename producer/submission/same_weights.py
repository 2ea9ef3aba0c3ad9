"""The job of an earlier submission, if it has the weights that the model has now.

A job's name says the input, the options and the model's name or path. If other weights lie under
the same path, the same submission is another job, whose name says the weights too.
"""

import hashlib
from collections.abc import Set

from common.errors import UserError
from common.job.manifest import Manifest, find_job
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.store import Store
from producer.scheduling.restore import stored_weights
from producer.submission.request import Request, job_name


def find_same_weights(
    request: Request, store: Store, ledger: Ledger, digest: str | None, weights: Set[str]
) -> tuple[str, Manifest | None, str | None]:
    """Find the job of an equal request with the same weights.

    Args:
        digest: of the model's files; None if they are not on this machine.
        weights: fingerprints of the weights that workers of the job's queue have.

    Returns:
        The fingerprint that names the job; its manifest, None if there is no such job yet; and, in
        that case, the name of the job of other weights that has the usual name.
    """
    usual = request.fingerprint()
    first = find_job(store, job_name(request.source, usual))
    now = digest or (next(iter(weights)) if len(weights) == 1 else None)
    if now is None or (first is not None and not differs(first, store, ledger, digest, weights)):
        return usual, first, None
    named_by_weights = fingerprint_with(request, now)
    second = find_job(store, job_name(request.source, named_by_weights))
    if second is not None:
        return named_by_weights, second, None
    return (usual, None, None) if first is None else (named_by_weights, None, first.job)


def fingerprint_with(request: Request, weights: str) -> str:
    """Return the hash of a request whose usual name a job of other weights has."""
    return hashlib.sha256(f"{request.fingerprint()} {weights}".encode()).hexdigest()


def job_names(request: Request, digest: str | None) -> list[str]:
    """Return the names that the job of a request may have, by the digest of its model's files."""
    usual = job_name(request.source, request.fingerprint())
    if digest is None:
        return [usual]
    return [usual, job_name(request.source, fingerprint_with(request, digest))]


def differs(
    manifest: Manifest, store: Store, ledger: Ledger, digest: str | None, weights: Set[str]
) -> bool:
    """Return whether a job is known to be of other weights than the model has now.

    A job of an earlier version, or of a producer that could not see the model's files, is compared
    by the weights that its first batch was computed with and that workers have now.
    """
    if manifest.model_digest is not None and digest is not None:
        return manifest.model_digest != digest
    if not weights:
        return False
    progress = ledger.jobs.progress(manifest.job)
    begun = progress.weights if progress is not None else None
    begun = begun or stored_weights(store, manifest)
    return begun is not None and begun not in weights


def check_same_files(manifest: Manifest) -> None:
    """Check that a model's files here are those that a job was submitted for.

    Raises:
        UserError: no worker on this machine would have its weights.
    """
    digest = ModelSource.parse(manifest.model).digest()
    if manifest.model_digest is not None and digest != manifest.model_digest:
        raise UserError(
            f"{manifest.model} has changed since job {manifest.job} was submitted: put the files "
            "back, or submit the input again for a job with the new ones."
        )
