"""Checks of a Redis: a real one, set up rightly and wrongly."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.checks.broker import REST, check_broker, grant
from common.checks.check import Check, Outcome
from common.checks.rights import Role, commands_of, words_of
from common.wire.redis_client import connect
from tests.support.clocks import SEEN_SECONDS, make_clock
from tests.support.redis_servers import HOST, RedisServer, free_port, running_redis

PASSWORD = "s3cretmarker"

#: The rights of a user that may do all that a fleet does, and no more keys.
ALL = ("on", f">{PASSWORD}", "~virnucpro:*", "&*", "+@all")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def as_user(server: RedisServer):
    """Return a function that makes a user with more rules, and returns its URL."""

    def make(*rules: str) -> str:
        with server.client as client:
            client.execute_command("ACL", "SETUSER", "someone", "reset", *ALL, *rules)
        return f"redis://someone:{PASSWORD}@{HOST}:{server.port}/0"

    yield make
    with server.client as client:
        client.execute_command("ACL", "DELUSER", "someone")


def checks(url: str, role: Role = "worker") -> dict[str, Check]:
    found = list(check_broker(url, role))
    assert [check.name for check in found] == ["redis", *REST]
    assert all(PASSWORD not in check.line() for check in found)
    return {check.name: check for check in found}


def troubles(found: dict[str, Check]) -> dict[str, Outcome]:
    return {name: each.outcome for name, each in found.items() if each.outcome is not Outcome.OK}


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_nothing_is_wrong_with_one_that_is_set_up_as_documented(server, as_user, role):
    url = as_user()
    with server.client as client:
        client.flushall()
        client.execute_command("ACL", "LOG", "RESET")
        found = checks(url, role)
        assert troubles(found) == {}
        assert "as user someone" in found["redis"].text
        assert client.keys("*") == []
        assert client.execute_command("ACL", "LOG") == []


def test_a_wrong_password_is_said(server, as_user):
    as_user()
    found = checks(f"redis://someone:{PASSWORD}x@{HOST}:{server.port}/0")
    assert found["redis"].outcome is Outcome.FAILED
    assert "needs a password, or refuses this user and password" in found["redis"].text
    assert {found[name].outcome for name in REST} == {Outcome.WARNING}


def test_no_redis_is_said():
    found = checks(f"redis://:{PASSWORD}@{HOST}:{free_port()}/0")
    assert "No Redis answers" in found["redis"].text
    assert "Start one" in found["redis"].advice


@pytest.mark.parametrize("role", ["producer", "worker"])
def test_each_command_that_a_user_lacks_is_named(as_user, role):
    for command in commands_of(role, 0):
        name = str(command[0]).lower()
        found = checks(as_user(f"-{name}"), role)
        if name == "ping":  # redis-py asks for it by itself
            continue
        assert troubles(found)["redis rights"] is Outcome.FAILED, command
        assert words_of(command) in found["redis rights"].text
        assert f"+{name}" in found["redis rights"].advice


def test_keys_and_channels_that_a_user_lacks_are_named(as_user):
    keys = checks(as_user("resetkeys", "~other:*"))["redis rights"]
    assert keys.advice == "ACL SETUSER … ~virnucpro:*"
    channels = checks(as_user("resetchannels", "&virnucpro:*"))["redis rights"]
    assert "PSUBSCRIBE virnucpro:/0.celery.pidbox" in channels.text
    assert "+psubscribe &virnucpro:/0.celery.pidbox" in channels.advice
    assert "PUBLISH" not in channels.text


def test_nothing_is_tried_without_a_transaction(server, as_user):
    found = checks(as_user("-multi"))
    assert found["redis rights"].text == "this user may not MULTI"
    with server.client as client:
        assert client.keys("*") == []


def test_a_user_without_info_is_told_so(as_user):
    found = checks(as_user("-info"))
    assert troubles(found) == dict.fromkeys(
        ("redis", "redis persistence", "redis memory"), Outcome.WARNING
    )
    assert "+info" in found["redis"].advice


@pytest.mark.parametrize("limit", [0, 100_000_000])
def test_one_that_evicts_is_wrong(server, as_user, limit):
    with server.client as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", limit)
        found = checks(as_user())
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    assert troubles(found) == {"redis memory": Outcome.FAILED}
    assert found["redis memory"].advice == "set maxmemory-policy noeviction"


def test_one_that_is_nearly_full_is_said(server, as_user):
    url = as_user()
    server.limit_memory(more=100_000)
    found = checks(url)
    server.limit_memory(None)
    assert troubles(found) == {"redis memory": Outcome.WARNING}


def test_one_without_a_file_is_said(tmp_path: Path):
    with running_redis(tmp_path, appendonly="no") as server:
        found = checks(server.url)
        assert troubles(found) == {"redis persistence": Outcome.WARNING}
        assert found["redis persistence"].advice == "set appendonly yes"


def test_a_replica_is_wrong(server, tmp_path: Path):
    with running_redis(tmp_path) as replica:
        replica.follow(server)
        found = checks(replica.url)
    assert troubles(found)["redis"] is Outcome.FAILED
    assert found["redis"].advice == "name its primary"


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(-40, Outcome.WARNING), (900, Outcome.FAILED)], ids=["a bit", "much"]
)
def test_a_clock_that_differs_is_said(tmp_path: Path, seconds, outcome):
    clock = make_clock(tmp_path / "clock")
    if clock is None:
        pytest.skip("needs libfaketime")
    clock.set(seconds)
    with running_redis(tmp_path / "redis", environment=clock.environment) as server:
        found = checks(server.url)
    assert SEEN_SECONDS < 5
    assert troubles(found) == {"redis clock": outcome}
    assert ("ahead of" if seconds > 0 else "behind") in found["redis clock"].text


def test_a_frozen_redis_is_said(tmp_path: Path):
    with running_redis(tmp_path) as server:
        server.freeze()
        found = checks(server.url)
        server.thaw()
    assert found["redis"].outcome is Outcome.FAILED
    assert "No Redis answers" in found["redis"].text


def test_a_worker_that_may_connect_has_all_rights_that_are_looked_at(as_user):
    """What ``worker start`` tries is among what the doctor tries."""
    url = as_user("-@all", *rules_of("worker"))
    assert troubles(checks(url)) == {}
    connect(url, as_worker=True).close()


def rules_of(role: Role) -> list[str]:
    """Return the rules of a user that may give a role's commands, and no others."""
    granted = {grant(words_of(command))[0] for command in commands_of(role, 0)}
    ours = ("+info", "+multi", "+exec", "+discard", "+select", "+acl|whoami")
    return [*sorted(granted), *ours]
