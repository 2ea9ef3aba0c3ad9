"""A model of one job's ledger: its scripts in plain Python, without the expiry of leases."""

from collections import Counter

from common.job.manifest import Manifest
from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, ReleaseReason
from common.ledger.progress import OPEN_STATES, JobState, OnInstability
from common.rungs import Rung
from common.wire.messages import Batch, BatchResult, Status
from tests.support.jobs import retry_after

#: The index and the rung of a batch.
Place = tuple[int, Rung]


def place_of(of: Batch | BatchResult) -> Place:
    return of.index, of.rung


class JobModel:
    """The expected state of a job, from its creation on."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.state = JobState.OPEN
        self.policy: OnInstability = "retry"
        self.published = 0
        self.begun: set[int] = set()
        self.done: dict[Place, BatchResult] = {}
        self.owner: dict[Place, str] = {}  # of a lease, expired or not
        self.lapsed: set[Place] = set()
        self.attempts: Counter[Place] = Counter()
        self.deaths: Counter[Place] = Counter()
        self.crash_records: dict[Place, CrashRecord] = {}
        self.lost = 0
        self.milliseconds = 0

    # --- state ---

    def held(self, place: Place) -> bool:
        return place in self.owner and place not in self.lapsed

    @property
    def batches_done(self) -> int:
        return sum(result.next is None for result in self.done.values())

    @property
    def left(self) -> int:
        """Count the batches that are to be done at the first rung, and those at a higher one."""
        done = sum(rung is self.manifest.rung for _, rung in self.done)
        return self.manifest.batches - done + len(self.retries())

    @property
    def waiting(self) -> int:
        """Count whole bytes of the bitmap, as the ledger does."""
        end = -(-self.published // 8) * 8
        return max(0, self.published - sum(index < end for index in self.begun))

    def follower(self, result: BatchResult) -> BatchResult | None:
        """Return the result of the retry that followed another result."""
        return None if result.next is None else self.done.get((result.index, result.next))

    def is_superseded(self, result: BatchResult) -> bool:
        follower = self.follower(result)
        return follower is not None and follower.status is not Status.FAILED

    def results(self) -> list[BatchResult]:
        """Return the results that failed or have unstable rows, unless their retry succeeded, and
        those with poisoned rows.
        """
        results = []
        for _, result in sorted(self.done.items()):
            failed = result.status is Status.FAILED
            if (failed or result.unstable) and not self.is_superseded(result):
                results.append(result.model_copy(update={"poisoned": ()}))
            if result.poisoned:
                update = {"unstable": (), "next": None, "records": 0}
                results.append(result.model_copy(update=update))
        return results

    def retries(self) -> dict[Place, Batch]:
        return {
            (result.index, result.next): retry_after(self.manifest, result)
            for result in self.results()
            if result.next is not None and self.follower(result) is None
        }

    def counters(self) -> Counter[str]:
        counted: Counter[str] = Counter(
            leases_lost=self.lost,
            batches_done=self.batches_done,
            milliseconds=self.milliseconds,
            published=self.published,
            batches=self.manifest.batches,
            records=self.manifest.report.records,
            tokens=self.manifest.tokens,
        )
        for result in self.done.values():
            counted[f"batches_{result.status}"] += 1
            counted[f"batches_at_{result.rung}"] += 1
            counted[f"embedded_at_{result.rung}"] += result.records
            counted[f"unstable_at_{result.rung}"] += len(result.unstable)
            counted[f"rows_{result.precision}"] += result.records
            counted["rows_quarantined"] += len(result.quarantined)
            if result.next is not None:
                retried = "rows_retried" if result.previous_rung is None else "rows_retried_again"
                counted[retried] += len(result.unstable)
            counted["tokens_done"] += result.tokens
        return counted

    # --- changes: each returns the answer that the ledger should give ---

    def claim(self, place: Place, owner: str) -> ClaimResult:
        if self.state in (JobState.STOPPED, JobState.CANCELLED):
            return ClaimResult(ClaimOutcome(self.state))
        if place in self.done:
            return ClaimResult(ClaimOutcome.DONE)
        if self.held(place) and self.owner[place] != owner:
            return ClaimResult(ClaimOutcome.HELD)
        previous_owner = self.owner.get(place, owner)
        if previous_owner != owner:
            self.lose(place)
        self.attempts[place] += not self.held(place)
        self.lapsed.discard(place)
        self.owner[place] = owner
        if place[1] is self.manifest.rung:
            self.begun.add(place[0])
        previous_owner = "" if previous_owner == owner else previous_owner
        return ClaimResult(
            ClaimOutcome.TAKEN, self.attempts[place], self.deaths[place], previous_owner
        )

    def lose(self, place: Place) -> None:
        self.deaths[place] += 1
        self.lost += 1

    def renew(self, place: Place, owner: str) -> bool:
        if self.owner.get(place) != owner or self.state is JobState.CANCELLED:
            return False
        self.lapsed.discard(place)
        return True

    def release(self, place: Place, owner: str, reason: ReleaseReason) -> bool:
        if self.owner.get(place) != owner:
            return False
        self.drop_lease(place)
        self.attempts[place] -= reason is ReleaseReason.INTERRUPTED
        self.deaths[place] += reason is ReleaseReason.CRASHED
        return True

    def drop_lease(self, place: Place) -> None:
        self.owner.pop(place, None)
        self.lapsed.discard(place)

    def save_crash_record(self, place: Place, owner: str, record: CrashRecord) -> bool:
        if self.owner.get(place) != owner:
            return False
        self.crash_records[place] = record
        return True

    def expire(self) -> list[tuple[int, Rung, str]]:
        expired = sorted((*place, self.owner[place]) for place in self.lapsed)
        for place in list(self.lapsed):
            self.lose(place)
            self.drop_lease(place)
        return expired

    def complete(self, result: BatchResult, owner: str | None) -> bool:
        place = place_of(result)
        if result.status is Status.FAILED and owner and self.owner.get(place) != owner:
            return False
        self.drop_lease(place)
        if place in self.done or not self.asked_for(result):
            return False
        self.done[place] = result
        self.forget(place)
        self.milliseconds += round(1000 * result.seconds)
        if result.previous_rung is None:
            self.begun.add(result.index)
        if result.stops_job and self.state in OPEN_STATES:
            self.state = JobState.STOPPED
        elif self.state is JobState.OPEN and self.batches_done == self.manifest.batches:
            self.state = JobState.FINISHED
        return True

    def asked_for(self, result: BatchResult) -> bool:
        """Return whether the ledger knows the retry that a result belongs to."""
        return result.previous_rung is None or place_of(result) in self.retries()

    def forget(self, place: Place) -> None:
        del self.attempts[place], self.deaths[place]
        self.crash_records.pop(place, None)

    def reopen(self, result: BatchResult) -> bool:
        if self.done.pop(place_of(result), None) is None:
            return False
        self.forget(place_of(result))
        if self.state not in (JobState.CANCELLED, JobState.STAGING):
            self.state = JobState.OPEN
        return True

    def resume(self, policy: OnInstability) -> None:
        self.policy, self.published = policy, 0
        if self.state in (JobState.STOPPED, JobState.CANCELLED):
            self.open()

    def open(self) -> None:
        finished = self.batches_done == self.manifest.batches
        self.state = JobState.FINISHED if finished else JobState.OPEN

    def end_staging(self) -> JobState:
        if self.state is JobState.STAGING:
            self.open()
        return self.state

    def cancel(self) -> JobState:
        if self.state in (*OPEN_STATES, JobState.STOPPED):
            self.state = JobState.CANCELLED
        return self.state
