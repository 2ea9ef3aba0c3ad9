"""The ledger's scripts beside a plain model of them: two workers, a keeper, duplicates.

Every script runs twice in a row, as redis-py may send a command twice after a timeout: the second
time nothing changes.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any, cast

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis
from redis.commands.core import Script

from common.ledger.claims import CrashRecord, ReleaseReason
from common.ledger.keys import job_key, parse_batch_field
from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES, JobState, OnInstability, Progress
from common.rungs import Rung, ladder
from common.wire.messages import Batch, BatchResult, Status
from tests.support.jobs import failed, manifest_of, ok, poisoned, unstable
from tests.support.ledger_model import JobModel, Place, place_of
from tests.support.ledgers import QUEUE, WEIGHTS, lapse, progress_of

STORE = "file:///store"
BATCH_SIZES = [2, 3, 4, 5, 6, 1, 2, 3, 2]
owners = st.sampled_from(["a", "b"])
numbers = count()

#: All that Redis holds, but for the time to which leases were prolonged.
KEPT = """
local function value_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'zset' then return redis.sha1hex(redis.call('DUMP', key)) end
  local is_hash = kind == 'hash'
  local names = is_hash and redis.call('HKEYS', key) or redis.call('ZRANGE', key, 0, -1)
  table.sort(names)  -- to read a hash may change its order
  for i, name in ipairs(names) do
    names[i] = name .. '=' .. (is_hash and redis.call('HGET', key, name) or '')
  end
  return table.concat(names, ' ')
end
local kept = {}
for i, key in ipairs(redis.call('KEYS', '*')) do kept[i] = key .. ': ' .. value_of(key) end
table.sort(kept)
return kept
"""

KINDS = ("ok", "unstable", "unstable", "failed", "stops", "poisoned")


@st.composite
def reports(draw: st.DrawFn, batch: Batch) -> BatchResult:
    """Return the results that a worker in half precision or in FP32 may report."""
    precision = draw(st.sampled_from([batch.rung, batch.rung, Rung.FP32]))
    kind = draw(st.sampled_from(KINDS))
    if kind == "ok":
        return ok(batch, precision=precision)
    if kind == "failed":
        return failed(batch)
    bad = draw(st.integers(1, batch.records))
    if kind == "poisoned":
        return poisoned(batch, *range(bad), precision=precision)
    result = unstable(batch, *range(bad), precision=precision, stops_job=kind == "stops")
    given_up = draw(st.integers(0, batch.records - bad))
    if not given_up:
        return result
    rows = poisoned(batch, *range(bad, bad + given_up)).poisoned
    return result.model_copy(
        update={"poisoned": rows, "records": batch.records - bad - given_up, "tokens": 0}
    )


class TwiceLedger(Ledger):
    """A ledger that sends every command twice and returns the answer to the first."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        for part in vars(self).values():
            scripts = getattr(part, "_scripts", {})
            scripts |= {name: self.twice(name, script) for name, script in scripts.items()}

    def twice(self, name: str, script: Script) -> Any:
        sha = cast(str, self.redis.script_load(script.script))

        def run(keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Any:
            pipe = self.redis.pipeline(transaction=False)  # one trip for the four
            for _ in range(2):
                pipe.evalsha(sha, len(keys), *keys, *args)
                pipe.eval(KEPT, 0)
            answer, before, _, after = pipe.execute()
            assert after == before, f"{name} changed something when it was sent again"
            return answer

        return run


class Fleet(RuleBasedStateMachine):
    """Whatever workers, keepers and users do, the ledger agrees with the model."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        redis.flushall()
        self.ledger = TwiceLedger(redis)
        self.manifest = manifest_of(BATCH_SIZES, job=f"fleet-{next(numbers)}")
        self.ledger.jobs.create(self.manifest, QUEUE)
        self.ledger.stores.end_look(STORE, self.ledger.stores.begin_look(STORE))
        self.model = JobModel(self.manifest)
        first = map(self.manifest.batch, range(len(BATCH_SIZES)))
        self.messages: dict[Place, Batch] = {place_of(batch): batch for batch in first}
        self.reports: list[BatchResult] = []  # that were sent
        self.wiped = False

    # --- a producer ---

    @initialize(staged=st.none() | st.integers(1, len(BATCH_SIZES)))
    def begin(self, staged: int | None) -> None:
        """The job is known as a whole, or its producer has staged some batches so far."""
        if staged is not None:
            self.ledger.jobs.forget(self.manifest.job)
            self.know(staged)
            assert self.ledger.jobs.create(self.manifest, QUEUE, staging=True)
            self.model.state = JobState.STAGING

    def know(self, batches: int) -> None:
        """Let the model know the job's first batches."""
        self.manifest = self.model.manifest = manifest_of(
            BATCH_SIZES[:batches], job=self.manifest.job
        )
        self.messages = {p: batch for p, batch in self.messages.items() if p[0] < batches}
        first = map(self.manifest.batch, range(batches))
        self.messages |= {place_of(batch): batch for batch in first}

    @rule(more=st.integers(0, 3))
    def grow(self, more: int) -> None:
        if self.model.state not in (JobState.OPEN, JobState.FINISHED):
            self.know(min(self.manifest.batches + more, len(BATCH_SIZES)))
        assert self.ledger.jobs.grow(self.manifest, is_whole=False) is self.model.state

    @rule()
    def end_staging(self) -> None:
        self.know(len(BATCH_SIZES))
        assert self.ledger.jobs.grow(self.manifest, is_whole=True) is self.model.end_staging()

    def any_place(self, data: st.DataObject) -> Place:
        return data.draw(st.sampled_from(sorted(self.messages)))

    def place_to_do(self, data: st.DataObject) -> Place:
        unsettled = sorted(self.messages.keys() - self.model.done.keys())
        return data.draw(st.sampled_from(unsettled)) if unsettled else self.any_place(data)

    # --- workers ---

    @rule(data=st.data(), owner=owners)
    def claim(self, data: st.DataObject, owner: str) -> None:
        self.try_to_take(self.any_place(data), owner)

    def try_to_take(self, place: Place, owner: str) -> None:
        found = self.ledger.leases.claim(self.messages[place], owner=owner, weights=WEIGHTS)
        assert found == self.model.claim(place, owner)

    @precondition(lambda self: self.model.owner)
    @rule(data=st.data(), owner=owners)
    def renew(self, data: st.DataObject, owner: str) -> None:
        place = data.draw(st.sampled_from(sorted(self.model.owner)))
        found = self.ledger.leases.renew(self.messages[place], owner=owner)
        assert found == self.model.renew(place, owner)

    @precondition(lambda self: self.model.owner)
    @rule(data=st.data(), owner=owners, reason=st.sampled_from(ReleaseReason))
    def release(self, data: st.DataObject, owner: str, reason: ReleaseReason) -> None:
        place = data.draw(st.sampled_from(sorted(self.model.owner)))
        found = self.ledger.leases.release(self.messages[place], owner=owner, reason=reason)
        assert found == self.model.release(place, owner, reason)

    @precondition(lambda self: self.model.owner)
    @rule(data=st.data(), owner=owners, row=st.none() | st.integers(0, 9))
    def follow(self, data: st.DataObject, owner: str, row: int | None) -> None:
        place = data.draw(st.sampled_from(sorted(self.model.owner)))
        record = CrashRecord(current_row=row)
        found = self.ledger.leases.save_crash_record(self.messages[place], record, owner=owner)
        assert found == self.model.save_crash_record(place, owner, record)

    @rule(data=st.data(), owner=owners)
    def take_and_complete(self, data: st.DataObject, owner: str) -> None:
        place = self.place_to_do(data)
        self.try_to_take(place, owner)
        self.report(data.draw(reports(self.messages[place])), owner)

    @rule(data=st.data(), owner=st.none() | owners)
    def complete(self, data: st.DataObject, owner: str | None) -> None:
        place = self.place_to_do(data)
        self.report(data.draw(reports(self.messages[place])), owner)

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), owner=st.none() | owners, anew=st.booleans())
    def report_again(self, data: st.DataObject, owner: str | None, anew: bool) -> None:
        report = data.draw(st.sampled_from(self.reports))
        if anew:  # the batch was computed twice, and what came of it differs
            report = data.draw(reports(self.messages[place_of(report)]))
        self.report(report, owner)

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), owner=st.none() | owners)
    def report_of_an_earlier_staging(self, data: st.DataObject, owner: str | None) -> None:
        report = data.draw(st.sampled_from(self.reports))
        stale = report.model_copy(update={"created": self.manifest.created.timestamp() - 1})
        assert not self.ledger.results.complete(stale, owner=owner)
        assert not self.ledger.results.reopen(stale)

    def report(self, report: BatchResult, owner: str | None) -> None:
        counts = self.model.complete(report, owner)
        assert self.ledger.results.complete(report, owner=owner) == counts
        if counts:
            self.reports.append(report)
            self.messages |= self.model.retries()

    @precondition(lambda self: self.model.owner)
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.model.owner)))
        lapse(self.ledger, self.messages[place])
        self.model.lapsed.add(place)

    # --- a keeper ---

    @precondition(lambda self: self.model.owner)
    @rule()
    def expire_leases(self) -> None:
        assert self.ledger.leases.expire(self.manifest.job) == self.model.expire()

    @rule(published=st.sampled_from([0, 8, len(BATCH_SIZES)]))
    def advance(self, published: int) -> None:
        self.ledger.jobs.advance(self.manifest, published)
        self.model.published = max(self.model.published, published)

    # --- a user ---

    @precondition(lambda self: self.model.done)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        """What was made of a batch, the last rung's first; or only that one, if it failed."""
        index = data.draw(st.sampled_from(sorted({index for index, _ in self.model.done})))
        *earlier, last = sorted(
            (result for result in self.model.done.values() if result.index == index),
            key=lambda result: ladder(self.manifest.rung).index(result.rung),
        )
        only_last = last.status is Status.FAILED and data.draw(st.booleans())
        for result in [last] if only_last else [last, *reversed(earlier)]:
            assert self.ledger.results.reopen(result) == self.model.reopen(result) is True
            assert not self.ledger.results.reopen(result)
        # Who reopens a batch sees that nobody has it: no worker reports the old results again.
        self.reports = [report for report in self.reports if report.index != index]

    @rule(policy=st.sampled_from(["retry", "fail"]))
    def resume(self, policy: OnInstability) -> None:
        self.end_staging()  # as whoever resumes a job does: it has a manifest
        self.ledger.jobs.resume(self.manifest, policy)
        self.model.resume(policy)

    @rule()
    def cancel(self) -> None:
        assert self.ledger.jobs.cancel(self.manifest.job) is self.model.cancel()

    @precondition(lambda self: len(self.model.done) > 3 and not self.wiped)
    @rule()
    def wipe(self) -> None:
        """All is forgotten, in the store too; but messages are still queued, of retries too."""
        self.ledger.jobs.forget(self.manifest.job)
        self.know(len(BATCH_SIZES))
        assert self.ledger.jobs.create(self.manifest, QUEUE)
        self.model = JobModel(self.manifest)
        self.wiped = True

    # --- what must be so at any time ---

    @invariant()
    def counters_and_state_are_those_of_the_model(self) -> None:
        progress = progress_of(self.ledger, self.manifest)
        assert progress.state is self.model.state
        assert Counter(progress.counts) == self.model.counters()
        assert (progress.published, progress.waiting) == (self.model.published, self.model.waiting)
        assert progress.leased == sum(map(self.model.held, self.messages))
        assert (progress.ended is None) == self.is_open
        crashing = sum(crashes > 1 for crashes in self.model.deaths.values())
        assert self.ledger.leases.crashing(self.manifest.job, 2) == crashing
        assert self.demand() == (max(1, self.model.left) if self.is_open else 0)
        fails = self.model.policy == "fail"
        assert self.ledger.jobs.stops_at_instability(self.manifest.job) == fails
        self.no_row_is_lost_and_none_counted_twice(progress)

    @property
    def is_open(self) -> bool:
        return self.model.state in OPEN_STATES

    def demand(self) -> int:
        assert self.ledger.demand.renew(STORE)
        found = self.ledger.demand.read()
        assert found is not None
        return found.get(QUEUE, 0)

    def no_row_is_lost_and_none_counted_twice(self, progress: Progress) -> None:
        done = self.model.done
        failed = [self.messages[place] for place, result in done.items() if result.error]
        without = sum(batch.records for batch in [*failed, *self.model.retries().values()])
        begun = {index for index, rung in done if rung is self.manifest.rung}
        known = progress.rows_done + progress.rows_quarantined + without
        assert known == sum(BATCH_SIZES[index] for index in begun)

    @invariant()
    def results_and_what_is_to_be_done_are_those_of_the_model(self) -> None:
        found = self.ledger.results.all(self.manifest.job)
        found.sort(key=lambda result: (*place_of(result), bool(result.poisoned)))
        assert found == self.model.results()
        retries = self.model.retries()
        assert self.ledger.batches.retries(self.manifest) == retries
        first = [(index, self.manifest.rung) for index in range(self.manifest.batches)]
        places = [*retries, *(place for place in first if place not in self.model.done)]
        expected = [self.messages[place] for place in places if place not in self.model.owner]
        assert list(self.ledger.batches.outstanding(self.manifest)) == expected
        assert self.ledger.leases.held(self.manifest.job) == set(self.model.owner)

    @invariant()
    def what_is_known_of_attempts_is_what_the_model_knows(self) -> None:
        model = self.model
        attempts, deaths, trails = self.noted("attempts", "deaths", "trails")
        assert attempts == {k: str(v) for k, v in model.attempts.items() if v}
        assert deaths == {k: str(v) for k, v in model.deaths.items() if v}
        assert trails == {k: record.model_dump_json() for k, record in model.crash_records.items()}
        assert np.flatnonzero(self.ledger.batches.begun(self.manifest)).tolist() == sorted(
            model.begun
        )

    def noted(self, *parts: str) -> list[dict[Place, str]]:
        """What there is in hashes of the job, but for zeros."""
        pipe = self.ledger.redis.pipeline(transaction=False)
        for part in parts:
            pipe.hgetall(f"{job_key(self.manifest.job)}:{part}")
        return [
            {parse_batch_field(field): text for field, text in found.items() if text != "0"}
            for found in pipe.execute()
        ]


def test_the_ledger_is_right_whatever_happens_in_whatever_order(redis):
    run_state_machine_as_test(
        lambda: Fleet(redis), settings=settings(max_examples=100, stateful_step_count=50)
    )
