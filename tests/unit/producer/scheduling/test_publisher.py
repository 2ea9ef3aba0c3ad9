"""Publishing: how jobs share the high-water mark, and that everything is published in the end."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Redis

from common.job.manifest import Manifest
from common.ledger.claims import ClaimOutcome
from common.ledger.ledger import Ledger
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX, Queues
from producer.scheduling.opening import job_queue, model_of
from producer.scheduling.publisher import HEAD_START, RESERVE, Demand, Publisher, portions
from tests.support.jobs import manifest_of, ok, retry_after, unstable
from tests.support.messages import body_of
from tests.support.staged import messages

MARK = 200

# --- portions -----------------------------------------------------------------------------------

counts = st.integers(0, 300)
demands_of_jobs = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2), st.builds(Demand, counts, counts), max_size=12
)
marks = st.integers(1, 500)


def share_of(demands: dict[str, Demand], high_water: int) -> int:
    """Return the share of a job among those with batches; it is at least 1."""
    return max(1, high_water // max(1, sum(demand != Demand(0, 0) for demand in demands.values())))


@given(demands_of_jobs, counts, marks)
def test_the_mark_is_never_passed(demands, queued, high_water):
    assert queued + sum(portions(demands, queued, high_water).values()) <= max(high_water, queued)


@given(demands_of_jobs, counts, marks)
def test_nobody_gets_more_than_is_left_of_the_job(demands, queued, high_water):
    found = portions(demands, queued, high_water)
    assert all(0 < portion <= demands[job].unpublished for job, portion in found.items())


@given(demands_of_jobs, counts, marks)
def test_nobody_gets_anything_while_one_with_less_waiting_is_left_short(
    demands, queued, high_water
):
    found = portions(demands, queued, high_water)
    share = share_of(demands, high_water)
    for job in found:
        for other, demand in demands.items():
            if demand.waiting < demands[job].waiting:
                wanted = min(demand.unpublished, share - demand.waiting)
                assert found.get(other, 0) >= min(wanted, HEAD_START)


@given(demands_of_jobs, counts, marks)
def test_nobody_has_more_than_a_fair_share(demands, queued, high_water):
    share = share_of(demands, high_water)
    for job, portion in portions(demands, queued, high_water).items():
        assert demands[job].waiting + portion <= share


@given(demands_of_jobs, marks, st.data())
@example({str(job): Demand(0, 9) for job in range(6)}, 5, None)
def test_every_new_job_gets_something_while_there_is_room(demands, high_water, data):
    queued = data.draw(st.integers(0, high_water)) if data else 0
    found = portions(demands, queued, high_water)
    new = [job for job, demand in demands.items() if demand.waiting == 0 and demand.unpublished]
    without = [job for job in new if job not in found]
    assert not without or queued + sum(found.values()) == high_water


def test_a_job_gets_the_mark_but_for_a_reserve_which_is_for_the_next_one():
    found = portions({"large": Demand(0, 10**6)}, 0, 20_000)
    assert found == {"large": 20_000 - 20_000 // RESERVE}
    demands = {"large": Demand(18_000, 10**6), "small": Demand(0, 10**6)}
    assert portions(demands, 18_000, 20_000) == {"small": HEAD_START}


def test_new_jobs_get_their_shares_as_far_as_the_mark_reaches():
    demands = {job: Demand(0, 10**6) for job in "abcd"}
    assert portions(demands, 0, 20_000) == {"a": 5000, "b": 5000, "c": 5000, "d": 3000}


def test_jobs_that_are_all_with_the_workers_have_no_share():
    demands = {str(job): Demand(0, 0) for job in range(1000)} | {"one": Demand(0, 1000)}
    assert portions(demands, 0, 100) == {"one": 90}


def test_what_a_small_job_does_not_want_is_not_kept_for_it():
    found = portions({"small": Demand(0, 3), "large": Demand(0, 1000)}, 0, 100)
    assert found == {"small": 3, "large": 50}


# --- a publisher -------------------------------------------------------------------------------


class Fleet:
    """Jobs, a publisher, and a worker that takes the next messages of a queue."""

    def __init__(self, ledger: Ledger, app: Celery, high_water: int) -> None:
        self.ledger = ledger
        self.app = app
        self.publisher = Publisher(ledger, app, high_water)
        self.high_water = high_water
        self.jobs: dict[str, Manifest] = {}
        self.taken: Counter[tuple[str, int]] = Counter()

    def open(self, job: str, batches: int, **options: object) -> Manifest:
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.jobs))
        manifest = manifest_of([1] * batches, job=job, created=created, **options)
        self.ledger.jobs.create(manifest, job_queue(manifest))
        self.jobs[job] = manifest
        return manifest

    def top_up(self) -> int:
        count = self.publisher.top_up(self.jobs)
        assert self.queued() <= self.high_water
        return count

    def queued(self) -> int:
        return sum(
            Queues(self.ledger.redis).length(queue)
            for queue in set(map(job_queue, self.jobs.values()))
        )

    def take(self, queue: str) -> Batch | None:
        """Take the next message, as BRPOP does."""
        item = self.ledger.redis.rpop(f"{KEY_PREFIX}{queue}")
        return None if item is None else Batch(**body_of(item)[1])

    def work(self, queue: str, count: int) -> int:
        """Do the next batches of a queue; return their number."""
        for number in range(count):
            batch = self.take(queue)
            if batch is None:
                return number
            self.taken[batch.job, batch.index] += 1
            if (
                self.ledger.leases.claim(batch, owner="a", weights="w").outcome
                is ClaimOutcome.TAKEN
            ):
                self.ledger.results.complete(ok(batch), owner="a")
        return count

    def waiting(self, job: str) -> int:
        progress = self.ledger.jobs.progress(job)
        assert progress is not None
        return progress.waiting

    def finished(self) -> bool:
        return not self.publisher.open_jobs({})


@pytest.fixture
def fleet_of(ledger, redis_url) -> Callable[[int], Fleet]:
    return lambda high_water: Fleet(ledger, make_celery(redis_url, []), high_water)


@pytest.fixture
def fleet(fleet_of) -> Fleet:
    return fleet_of(MARK)


def test_a_job_of_many_batches_goes_through_a_short_queue_and_each_batch_once(fleet):
    queue = job_queue(fleet.open("large", 3000))
    for _ in range(100):
        fleet.top_up()
        fleet.work(queue, 70)
        if fleet.finished():
            break
    assert fleet.finished()
    assert set(fleet.taken.values()) == {1}
    assert len(fleet.taken) == 3000
    assert fleet.top_up() == fleet.queued() == 0


@pytest.mark.parametrize("high_water", [1, 5, 8, 9])
def test_however_low_the_mark_is_every_job_is_done(fleet_of, high_water):
    fleet = fleet_of(high_water)
    queue = ""
    for job in range(high_water + 2):
        queue = job_queue(fleet.open(f"job-{job}", 19))
    for _ in range(1000):
        fleet.top_up()
        fleet.work(queue, high_water)
        if fleet.finished():
            break
    assert fleet.finished()
    assert set(fleet.taken.values()) == {1}


def test_batches_are_published_in_their_order_and_taken_in_it(fleet, redis):
    manifest = fleet.open("one", 150)
    assert fleet.top_up() == 150
    assert messages(redis, job_queue(manifest)) == list(map(manifest.batch, range(150)))
    assert fleet.ledger.jobs.progress("one").published == 150


def test_a_small_job_behind_a_large_one_is_taken_next(fleet, redis):
    large = fleet.open("large", 3000)
    fleet.top_up()
    small = fleet.open("small", 10)
    assert fleet.top_up() == 10
    queued = messages(redis, job_queue(large))
    assert queued[:10] == list(map(small.batch, range(10)))
    assert queued[10:] == list(map(large.batch, range(180)))


def test_only_the_head_start_of_a_job_goes_before_what_waits(fleet, redis):
    first = fleet.open("first", 60)
    fleet.top_up()
    second = fleet.open("second", 90)
    assert fleet.top_up() == 90
    queued = messages(redis, job_queue(first))
    assert queued[:HEAD_START] == list(map(second.batch, range(HEAD_START)))
    assert queued[HEAD_START:-26] == list(map(first.batch, range(60)))
    assert queued[-26:] == list(map(second.batch, range(HEAD_START, 90)))


def test_two_large_jobs_share_the_mark_and_the_workers(fleet):
    queue = job_queue(fleet.open("one", 2000))
    fleet.top_up()
    fleet.open("other", 2000)
    for _ in range(20):
        fleet.top_up()
        fleet.work(queue, 50)
    fleet.top_up()
    waiting = [fleet.waiting("one"), fleet.waiting("other")]
    assert min(waiting) >= MARK // 2 - MARK // RESERVE
    assert max(waiting) <= MARK // 2
    taken = Counter(job for job, _ in fleet.taken.elements())
    assert min(taken.values()) > fleet.taken.total() // 3


def test_jobs_of_another_queue_count_for_the_mark_too(fleet):
    fleet.open("one", 2000)
    fleet.top_up()
    other = fleet.open("other", 2000, model="random:esm2_t12_35M_UR50D")
    fleet.top_up()
    assert Queues(fleet.ledger.redis).length(job_queue(other)) == MARK // RESERVE


def test_retries_count_for_the_mark_and_are_left_alone(fleet, redis):
    manifest = fleet.open("one", 2000)
    result = unstable(manifest.batch(0))
    fleet.ledger.results.complete(result)
    retry = retry_after(manifest, result)
    publish(fleet.app, model_of(manifest), [retry])
    assert fleet.top_up() == MARK - MARK // RESERVE - 1
    queues = fleet.ledger.jobs.progress("one").queues
    assert messages(redis, queues[retry.rung]) == [retry]
    assert messages(redis, job_queue(manifest))[0] == manifest.batch(1)


def test_what_is_done_or_held_is_not_published(fleet, redis):
    manifest = fleet.open("one", 30)
    fleet.ledger.results.complete(ok(manifest.batch(3)))
    fleet.ledger.leases.claim(manifest.batch(5), owner="a", weights="w")
    assert fleet.top_up() == 28
    left = [index for index in range(30) if index not in (3, 5)]
    assert messages(redis, job_queue(manifest)) == list(map(manifest.batch, left))


def test_what_is_held_at_a_higher_rung_is_done_at_the_first(fleet):
    manifest = fleet.open("one", 3)
    result = unstable(manifest.batch(1))
    fleet.ledger.results.complete(result)
    fleet.ledger.leases.claim(retry_after(manifest, result), owner="a", weights="w")
    assert fleet.top_up() == 2
    assert fleet.ledger.leases.held("one") == {(1, result.next)}


def test_a_job_that_another_keeper_feeds_has_its_share_and_gets_nothing_from_this_one(fleet):
    fleet.open("ours", 2000)
    theirs = fleet.jobs.pop(fleet.open("theirs", 2000).job)
    assert fleet.top_up() == MARK // 2 - MARK // RESERVE
    assert fleet.waiting(theirs.job) == 0


def test_a_job_that_is_cancelled_gets_nothing_more(fleet):
    fleet.open("one", 2000)
    fleet.top_up()
    fleet.ledger.jobs.cancel("one")
    fleet.ledger.redis.delete(f"{KEY_PREFIX}{job_queue(fleet.jobs['one'])}")
    assert fleet.top_up() == 0


def test_a_job_that_is_not_known_gets_nothing(fleet):
    fleet.jobs["gone"] = manifest_of([1] * 9, job="gone")
    assert fleet.top_up() == 0


def test_a_cursor_of_an_earlier_staging_moves_nothing(fleet, redis: Redis):
    """The job is staged again while its batches are being published."""
    manifest = fleet.open("one", 30)
    earlier = manifest.model_copy(update={"created": datetime(2025, 1, 1, tzinfo=UTC)})
    fleet.publisher.top_up({"one": earlier})
    assert fleet.ledger.jobs.progress("one").published == 0
    redis.delete(f"{KEY_PREFIX}{job_queue(manifest)}")
    assert fleet.top_up() == 30
