"""Deleting the jobs that were closed long ago, some in each step of a keeper.

A look at the whole store reads an object of each job, so there is one an hour. It remembers when
each closed job is to go, and so does the keeper when it closes one: in between, those are looked at
when their time has come.
"""

import logging
import time
from datetime import UTC, datetime, timedelta

from common.ledger.ledger import Ledger
from common.store import Store, StoreError
from producer.scheduling.closed import Closed, possible_jobs, read_closed
from producer.scheduling.deletion import delete_job, staged_at
from producer.scheduling.job_lock import job_lock
from producer.scheduling.one_by_one import OneByOne

log = logging.getLogger(__name__)

#: Seconds between two looks for old jobs, before jobs that could not be deleted are tried again,
#: and for which jobs are deleted at a time.
LOOK_SECONDS, AGAIN_SECONDS, PORTION_SECONDS = 3600.0, 60.0, 1.0

#: Difference between this machine's clock and Redis's from which nothing is deleted for its age.
MAX_CLOCK_DIFFERENCE = timedelta(minutes=2)


class OldJobs:
    """The old jobs of a store."""

    def __init__(
        self, store: Store, ledger: Ledger, one_by_one: OneByOne, keep: timedelta | None
    ) -> None:
        """Look at nothing yet.

        Args:
            keep: how long closed jobs are kept; None: for ever.
        """
        self.store = store
        self.ledger = ledger
        self.one_by_one = one_by_one
        self.keep = keep
        self.next_look = self.next_try = 0.0
        self._left: list[str] = []  # jobs to look at, the last one first
        self._due: dict[str, float] = {}  # closed jobs, by when they are old, on this clock
        self._failed: list[str] = []
        self._said: set[str] = set()
        self._clocks_agreed = True

    def look_anew(self) -> None:
        """Have the next step begin a look at all jobs: others may have closed some."""
        self.next_look = 0.0

    def note(self, job: str, closed: datetime) -> None:
        """Note when a job was closed, to delete it in time."""
        if self.keep is not None:
            left = closed - self.ledger.now() + self.keep
            self._due[job] = time.monotonic() + left.total_seconds()

    def delete_some(self) -> bool:
        """Delete old jobs for about a second, one at least; return whether a new look began.

        An error of the store is logged, and its jobs are deleted later.
        """
        if self.keep is None:
            return False
        began = False
        try:
            now = time.monotonic()
            began = self._begin_look(now)
            self._take_due(now)
            if self._left and self._clocks_agree():
                self._delete_left(self.keep)
        except StoreError as error:  # there is no store at this moment
            self._left = []
            self.next_look = time.monotonic() + AGAIN_SECONDS
            self._say(f"Old jobs are deleted later: {error}")
        return began

    def _begin_look(self, now: float) -> bool:
        """List the jobs to look at if it is time; return whether they are all jobs."""
        if now >= self.next_look:
            self._left, self._failed = sorted(possible_jobs(self.store), reverse=True), []
            self.next_look = now + LOOK_SECONDS
            return True
        if self._failed and now >= self.next_try:
            self._left, self._failed = self._left + self._failed, []
        return False

    def _take_due(self, now: float) -> None:
        """Add the jobs whose time has come to those to look at, as the next ones."""
        due = [job for job, old_at in self._due.items() if old_at <= now]
        for job in due:
            del self._due[job]
        self._left += sorted(due, reverse=True)

    def _clocks_agree(self) -> bool:
        difference = datetime.now(UTC) - self.ledger.now()
        agree = abs(difference) <= MAX_CLOCK_DIFFERENCE
        if not agree:
            self._left = []
            self.next_look = time.monotonic() + AGAIN_SECONDS
        if not agree and self._clocks_agreed:
            log.error(
                "No old job is deleted: the clock here is %+d s from Redis's. Set both right.",
                difference.total_seconds(),
            )
        self._clocks_agreed = agree
        return agree

    def _delete_left(self, keep: timedelta) -> None:
        end = time.monotonic() + PORTION_SECONDS
        while self._left:
            job = self._left.pop()
            try:
                with self.one_by_one(job):
                    self._delete_if_old(job, keep)
            except StoreError as error:
                self.store.check_exists()  # or none of its jobs can be deleted
                self._failed.append(job)
                self.next_try = time.monotonic() + AGAIN_SECONDS
                self._say(f"Job {job} is deleted later, if it is old: {error}")
            if time.monotonic() >= end:
                return

    def _delete_if_old(self, job: str, keep: timedelta) -> None:
        closed = read_closed(self.store, job)
        if closed is None:
            return
        if not self._is_old(closed, keep):
            self.note(job, closed.time)
            return
        with job_lock(self.ledger, job) as hold:
            # One that this version cannot read is an error, and stays.
            created = staged_at(self.store, job)
            closed = read_closed(self.store, job)
            if (
                closed is not None
                and self._is_old(closed, keep)
                and delete_job(
                    self.store, self.ledger, job, hold, created=created, only_closed=True
                )
            ):
                log.warning("Job %s was %s since %s: deleted.", job, closed.state, closed.time)

    def _is_old(self, closed: Closed, keep: timedelta) -> bool:
        return self.ledger.now() - closed.time > keep

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)
