"""A small job in a ledger on a real Redis, and the actions of its workers."""

from common.job.manifest import Manifest
from common.ledger.claims import ClaimOutcome, ClaimResult
from common.ledger.keys import batch_field, job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.rungs import Rung
from common.wire.messages import Batch
from tests.support.jobs import manifest_of, retry_after, unstable

MANIFEST = manifest_of([3, 5])
BATCH, OTHER = MANIFEST.batch(0), MANIFEST.batch(1)
WEIGHTS = "sha256:1234"
QUEUE = "random.esm2_t6_8M_UR50D.fp16"


def try_to_claim(
    ledger: Ledger, batch: Batch = BATCH, owner: str = "a", weights: str = WEIGHTS
) -> ClaimOutcome:
    return ledger.leases.claim(batch, owner=owner, weights=weights).outcome


def take(ledger: Ledger, batch: Batch = BATCH, owner: str = "a") -> ClaimResult:
    """Claim a batch that is available."""
    attempt = ledger.leases.claim(batch, owner=owner, weights=WEIGHTS)
    assert attempt.outcome is ClaimOutcome.TAKEN
    return attempt


def lapse(ledger: Ledger, batch: Batch = BATCH) -> None:
    """Make a lease expire now."""
    ledger.redis.zadd(f"{job_key(batch.job)}:leases", {batch_field(batch.index, batch.rung): 1})


def climb(ledger: Ledger, batch: Batch = BATCH) -> Batch:
    """Report a row of a batch as not finite; return the message that retries it."""
    result = unstable(batch)
    assert ledger.results.complete(result)
    return retry_after(MANIFEST, result)


def progress_of(ledger: Ledger, manifest: Manifest = MANIFEST) -> Progress:
    progress = ledger.jobs.progress(manifest.job)
    assert progress is not None
    return progress


def outstanding_places(ledger: Ledger, manifest: Manifest = MANIFEST) -> list[tuple[int, Rung]]:
    return [(batch.index, batch.rung) for batch in ledger.batches.outstanding(manifest)]


def everything(ledger: Ledger) -> dict[str, bytes]:
    """Return the content of Redis."""
    return {key: ledger.redis.dump(key) for key in ledger.redis.keys()}  # noqa: SIM118
