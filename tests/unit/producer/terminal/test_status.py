"""``producer status`` and ``producer dead-letters`` show the rest when one entry is anything."""

from datetime import timedelta

import pytest

from common.errors import UserError
from common.ledger.workers import WORKER_PREFIX
from common.wire.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetters
from producer.cli.lists import dead_letters
from producer.cli.status import keep_of, show_fleet
from producer.fleet.fleet import Fleet
from tests.support.worlds import WORKER

ODD = ["[]", "null", b"\xff\xfe", '{"name": "x"}', "[" * 100_000, '{"time": NaN}']


@pytest.fixture
def fleet(redis, redis_url, tmp_path) -> Fleet:
    fleet = Fleet(broker=redis_url, store=str(tmp_path / "store"))
    fleet.ledger.workers.announce(WORKER)
    letter = DeadLetter(queue="q", worker="w", reason="the good one", message="m")
    DeadLetters(redis).add(letter)
    return fleet


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_the_other_workers_and_letters_are_shown(fleet, redis, redis_url, odd, capsys):
    redis.set(f"{WORKER_PREFIX}odd", odd)
    redis.set(WORKER_PREFIX.encode() + b"\xff", odd)
    redis.lpush(DEAD_LETTERS, odd)
    show_fleet(fleet)
    shown = capsys.readouterr().out
    assert WORKER.device in shown
    assert "Worker odd is of another version of the program." in shown
    assert r"Worker \xff is of another version of the program." in shown
    assert "the good one" in shown
    dead_letters(broker=redis_url)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_keys_of_another_type_are_named(fleet, redis, redis_url, capsys):
    redis.hset(f"{WORKER_PREFIX}odd", "a", "b")
    redis.delete(DEAD_LETTERS)
    redis.hset(DEAD_LETTERS, "a", "b")
    show_fleet(fleet)
    shown = capsys.readouterr().out
    assert WORKER.device in shown
    assert f"{DEAD_LETTERS} in Redis is no list" in shown
    with pytest.raises(UserError, match="dead-letters --clear"):
        dead_letters(broker=redis_url)
    dead_letters(clear=True, broker=redis_url)
    dead_letters(broker=redis_url)


def test_a_store_that_is_named_is_kept_as_its_own_keeper_says(fleet, redis_url):
    days = timedelta(days=2)
    fleet.ledger.stores.note_keep("file:///another", days)
    assert keep_of(fleet) is None
    assert keep_of(Fleet(broker=redis_url)) == days
    fleet.ledger.stores.note_keep(fleet.store.url, days / 2)
    assert keep_of(fleet) == days / 2
    assert keep_of(Fleet(broker=redis_url)) is None
