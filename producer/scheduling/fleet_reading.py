"""A reading of the whole fleet from the ledger, for metrics."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from common.errors import UserError
from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES, JobState, Progress
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.queues import Queues
from producer.scheduling.diagnosis import are_refused, have_other_weights
from producer.scheduling.one_by_one import OneByOne

#: Seconds for which a job is read after its end, so that its last figures are seen.
KEPT_SECONDS = 3600.0

#: Jobs that are read at most, each with some 30 numbers: open ones first, the oldest before others.
MAX_JOBS = 300

#: Seconds over which a job's speed is averaged.
SPEED_SECONDS = 120.0

#: Crashes of a batch from which it is counted. One may be the end of a host.
CRASHES = 2


@dataclass(frozen=True)
class JobReading:
    """A job's progress, and what is not in it."""

    progress: Progress
    ended: float | None  # seconds since the epoch; None while it is open
    tokens_per_second: float | None = None  # None: not known, or not open
    crashing: int = 0  # batches without a result that ended their worker several times
    blocked: str = ""  # a word for why no worker can take its batches


@dataclass(frozen=True)
class FleetReading:
    """The fleet at one moment."""

    states: Mapping[JobState, int]
    jobs: Sequence[JobReading]
    unlisted: int  # jobs that are too many to be read
    queues: Mapping[str, tuple[Progress, str, int]]  # a job, the rung, and the messages, by name
    workers: Sequence[WorkerInfo]
    demand: Mapping[str, int] | None  # batches left of each pool; None: not known
    dead_letters: Mapping[str, int] | None  # by kind; None: the key is none of dead letters
    last_dead_letter: float | None  # seconds since the epoch
    memory: Mapping[str, int] = field(default_factory=dict)  # Redis's INFO, as far as it is known

    @property
    def open_jobs(self) -> list[JobReading]:
        return [job for job in self.jobs if job.progress.state in OPEN_STATES]


class FleetReader:
    """Reads the fleet again and again: a few commands for each open job."""

    def __init__(self, ledger: Ledger, one_by_one: OneByOne) -> None:
        self.ledger = ledger
        self.one_by_one = one_by_one
        self._speeds: dict[str, Speed] = {}
        self._open: set[str] = set()  # jobs that were open at the last reading
        self._ended: dict[tuple[str, float, JobState], float] = {}  # when each closed job ended
        self._letters: tuple[int, DeadLetter | None] = 0, None
        self._kinds: Counter[str] = Counter()

    def read(self) -> FleetReading:
        """Read the fleet.

        Raises:
            RedisError: Redis does not answer.
        """
        states = self.ledger.jobs.states()
        jobs = self._jobs(states)
        listed, workers = jobs[:MAX_JOBS], self.ledger.workers.all()
        is_open = [job for job, _ in jobs if job.state in OPEN_STATES]
        self._open = {job.job for job in is_open}
        self._speeds = {job: self._speeds.get(job, Speed(SPEED_SECONDS)) for job in self._open}
        counts = Counter(state for state, _ in states.values())
        kinds, last_letter = self._dead_letters()
        return FleetReading(
            states={state: counts[state] for state in JobState},
            jobs=[self._job(progress, ended, workers) for progress, ended in listed],
            unlisted=len(jobs) - len(listed),
            queues=self._queues(is_open),
            workers=workers,
            demand=self.ledger.demand.read(),
            dead_letters=kinds,
            last_dead_letter=last_letter,
            memory=self._memory(),
        )

    def _jobs(
        self, states: Mapping[str, tuple[JobState | None, float]]
    ) -> list[tuple[Progress, float | None]]:
        """Return the open jobs, oldest first, then those that ended a while ago, latest first."""
        now = self.ledger.now().timestamp()
        is_open: list[tuple[Progress, float | None]] = []
        closed: list[tuple[float, Progress]] = []
        known, self._ended = self._ended, {}
        for job, (state, created) in reversed(list(states.items())):
            if state is None:
                continue
            place = (job, created, state)
            if place in known and known[place] < now - KEPT_SECONDS:
                self._ended[place] = known[place]
                continue
            with self.one_by_one(job):
                progress = self.ledger.jobs.progress(job)
                if progress is None:
                    continue
                if progress.state in OPEN_STATES:
                    is_open.append((progress, None))
                    continue
                # Workers of earlier versions do not write when a job ended.
                seen = known.get(place, now if job in self._open else 0.0)
                ended = progress.ended if progress.ended is not None else seen
                self._ended[job, created, progress.state] = ended
                if ended >= now - KEPT_SECONDS:
                    closed.append((ended, progress))
        closed.sort(key=lambda job: job[0], reverse=True)
        return is_open + [(progress, ended) for ended, progress in closed]

    def _job(
        self, progress: Progress, ended: float | None, workers: Sequence[WorkerInfo]
    ) -> JobReading:
        if ended is not None:
            return JobReading(progress, ended)
        speed = self._speeds[progress.job].update(time.monotonic(), progress.tokens_done)
        crashing = 0
        with self.one_by_one(progress.job):
            crashing = self.ledger.leases.crashing(progress.job, CRASHES)
        return JobReading(progress, None, speed or 0.0, crashing, blocked_by(progress, workers))

    def _queues(self, jobs: Iterable[Progress]) -> dict[str, tuple[Progress, str, int]]:
        queues = Queues(self.ledger.redis)
        found: dict[str, tuple[Progress, str, int]] = {}
        for job in jobs:
            with self.one_by_one(job.job):
                for rung, queue in job.queues.items():
                    if queue not in found:
                        found[queue] = (job, rung, queues.length(queue))
        return found

    def _dead_letters(self) -> tuple[Mapping[str, int] | None, float | None]:
        """Return the number of dead letters of each kind, and the time of the last one."""
        letters = DeadLetters(self.ledger.redis)
        with suppress(UserError):
            newest = letters.latest(1)
            found = letters.count(), newest[0] if newest else None
            if found != self._letters:  # or there are none that were not counted before
                self._letters, self._kinds = found, Counter(old.kind for old in letters.latest())
            return self._kinds, None if found[1] is None else found[1].time
        return None, None

    def _memory(self) -> dict[str, int]:
        with suppress(ResponseError):  # some servers do not support INFO
            info = self.ledger.redis.info("memory")
            return {name: int(info[name]) for name in ("used_memory", "maxmemory") if name in info}
        return {}


def blocked_by(progress: Progress, workers: Sequence[WorkerInfo]) -> str:
    """Return a word for why no worker can take a job's batches; an empty one if one can."""
    if progress.leased:
        return ""
    serving = [worker for worker in workers if progress.queue in worker.queues]
    if not serving:
        return "no_workers"
    if have_other_weights(progress, serving):
        return "other_weights"
    return "refused" if are_refused(progress, serving) else ""
