"""A name server that hangs: a client of Redis gives up in time, and goes on once it answers."""

import socket
import threading
from collections.abc import Iterator

import pytest
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from common.wire.address import RedisAddress
from common.wire.first_contact import passing_problem
from common.wire.lookups import BoundedTlsConnection, look_up, open_client
from common.wire.redis_client import redis_client
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisServer, running_redis

NAME = "redis.fleet.example"


class NameServer:
    """Answers for ``NAME`` with this machine's address, once it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = 0
        self._look_up = socket.getaddrinfo

    def __call__(self, host, *args):
        if host != NAME:
            return self._look_up(host, *args)
        self.asked += 1
        self.answers.wait(60)
        return self._look_up("127.0.0.1", *args)


@pytest.fixture
def names(monkeypatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.answers.set()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


def test_a_client_gives_up_in_time_asks_once_and_connects_when_the_name_server_answers(
    names, server
):
    url = server.url.replace("127.0.0.1", NAME)
    with redis_client(url, answer_seconds=0.2, retries=0) as client:
        for _ in range(3):
            with pytest.raises(RedisConnectionError, match="was not looked up within"):
                client.ping()
        assert names.asked == 1
        names.answers.set()
        wait_until(lambda: not [t for t in threading.enumerate() if t.name == "bounded"], 10)
        assert client.ping()
        client.connection_pool.disconnect()
        assert client.ping()
        assert names.asked == 2  # an answer is not kept


def test_the_first_contact_ends_in_time_and_says_that_it_may_pass(names, server, monkeypatch):
    monkeypatch.setattr("common.wire.first_contact.ANSWER_SECONDS", 0.2)
    address = RedisAddress.parse(server.url.replace("127.0.0.1", NAME))
    problem = passing_problem(address)
    assert problem is not None
    assert NAME in problem
    names.answers.set()
    wait_until(lambda: passing_problem(address) is None, 10)


def test_a_host_without_an_address_is_an_error_each_time():
    for _ in range(2):
        with pytest.raises(OSError, match=r"[Nn]ame|address"):
            look_up("redis.invalid", 6379, 0, 10)


def test_connections_with_tls_are_bounded_and_those_by_a_socket_have_no_name():
    tls = open_client(RedisAddress.parse("rediss://a"))
    assert tls.connection_pool.connection_class is BoundedTlsConnection
    local = open_client(RedisAddress.parse("unix:///a"))
    assert local.connection_pool.connection_class is UnixDomainSocketConnection
