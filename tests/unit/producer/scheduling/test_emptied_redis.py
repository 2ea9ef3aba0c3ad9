"""Redis emptied at every command of a keeper: the job comes back, with every batch counted."""

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.connection import UnixDomainSocketConnection

from common.job.manifest import write_manifest
from producer.scheduling.keeper import Keeper
from tests.support.staged import Job

#: More commands than the steps of a keeper send.
MOST_COMMANDS = 200


class Emptying:
    """Empties Redis before chosen commands of a client, counted from ``begin``."""

    def __init__(self, redis: Redis, other: Redis) -> None:
        self.sent = MOST_COMMANDS
        self.at: set[int] = set()

        class Connection(UnixDomainSocketConnection):
            def send_packed_command(_, command, check_health=True):  # noqa: N805
                self.sent += 1
                if self.sent in self.at:
                    other.flushall()
                return super().send_packed_command(command, check_health)

        redis.connection_pool.disconnect()
        redis.connection_pool.reset()
        redis.connection_pool.connection_class = Connection

    def begin(self, *at: int) -> None:
        self.sent, self.at = 0, set(at)


@pytest.fixture
def emptying(redis, redis_url) -> Iterator[Emptying]:
    with Redis(unix_socket_path=redis.connection_pool.connection_kwargs["path"]) as other:
        yield Emptying(redis, other)


@pytest.fixture
def staged(emptying, job: Job) -> Job:
    """A job in the store, with a shard for all but its last batch."""
    write_manifest(job.store, job.manifest)
    job.shard(0)
    job.shard(1)
    return job


@pytest.fixture
def keeper_of(staged) -> Callable[..., Keeper]:
    return lambda **options: Keeper(staged.store, staged.ledger, staged.publisher, **options)


def steps(keeper: Keeper, times: int) -> None:
    for _ in range(times):
        keeper.next_step = keeper._next_hold = keeper.lost_messages._next_look = 0
        keeper.step()


def assert_is_back(staged: Job) -> None:
    progress = staged.progress
    assert (progress.batches_done, progress.published) == (2, 3)
    assert [index for index, _ in staged.outstanding()] == [2]


@pytest.mark.parametrize("is_on_standby", [False, True])
def test_a_job_comes_back_wherever_redis_is_emptied_in_a_keepers_step(
    emptying, staged, keeper_of, is_on_standby
):
    keeper = keeper_of(only=staged.name if is_on_standby else None)
    emptying.begin()
    steps(keeper, 1)
    commands = emptying.sent
    assert 10 < commands < MOST_COMMANDS
    for number in range(1, commands + 1):
        staged.ledger.redis.flushall()
        emptying.begin(number)
        steps(keeper, 1)
        emptying.begin()
        steps(keeper, 3)
        assert_is_back(staged)


def test_a_job_comes_back_if_redis_is_emptied_twice_in_two_steps(emptying, staged, keeper_of):
    keeper = keeper_of()
    for first in range(1, 40, 3):
        for second in range(first + 1, 60, 7):
            staged.ledger.redis.flushall()
            emptying.begin(first, second)
            steps(keeper, 2)
            emptying.begin()
            steps(keeper, 3)
            assert_is_back(staged)


def test_a_job_comes_back_wherever_redis_is_emptied_while_it_is_opened(emptying, staged, keeper_of):
    keeper = keeper_of()
    emptying.begin()
    staged.open()
    for number in range(1, emptying.sent + 1):
        staged.ledger.redis.flushall()
        steps(keeper, 1)
        emptying.begin(number)
        staged.open()
        emptying.begin()
        steps(keeper, 3)
        assert_is_back(staged)
