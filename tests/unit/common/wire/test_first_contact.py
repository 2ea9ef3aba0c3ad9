"""The first contact with Redis: what is wrong is said within ten seconds, and without a password.

Every server is a real one.
"""

import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common.errors import UserError
from common.model_source import ModelSource
from common.wire import first_contact
from common.wire.address import RedisAddress
from common.wire.celery_app import make_celery, publish
from common.wire.first_contact import is_refusal, may_come, passing_problem, wait_until_usable
from common.wire.redis_client import connect
from tests.support.jobs import manifest_of
from tests.support.redis_servers import HOST, RedisServer, running_redis
from tests.support.tls import Certificate, make_certificate, tls_port

MANIFEST = manifest_of([3])
MODEL = ModelSource.parse(MANIFEST.model)

#: Users of the Redis with a password, by their rights. All have the password "s3cret".
USERS = {
    "idle": "+ping +hello",
    "elsewhere": "+@all ~other:* &*",
    "deaf": "+@all ~virnucpro:* resetchannels",
    "channels": "+@all ~virnucpro:* resetchannels &virnucpro:*",
    "producer": "+@all -brpop ~virnucpro:*",
    "worker": "+@all -@admin -@dangerous ~virnucpro:* &*",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    with running_redis(folder, requirepass="s3cret", databases=4) as running:
        with running.client as client:
            for name, rights in USERS.items():
                client.execute_command("ACL", "SETUSER", name, "on", ">s3cret", *rights.split())
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(server, certificate) -> Iterator[int]:
    """The port of the same Redis that speaks TLS."""
    with tls_port(server.port, certificate) as port:
        yield port


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that is reserved, and on which no server listens."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


def refusal(url: str, *, as_worker: bool = False) -> str:
    """Return why an address cannot be used, after checking that this is said in time."""
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        connect(url, as_worker=as_worker)
    assert time.monotonic() - started < 10
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_a_redis_that_does_not_answer_is_named_with_what_to_do(closed):
    message = refusal(f"redis://user:s3cret@{HOST}:{closed}/0")
    assert message.startswith(f"No Redis answers at redis://***@{HOST}:{closed}/0 (")
    assert "Connection refused" in message
    assert "Start one (redis-server)" in message
    assert "VIRNUCPRO_BROKER_URL" in message
    assert "--local" in message


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_port_that_never_answers_is_said_to_be_silent(silent, scheme):
    assert "(Timeout " in refusal(f"{scheme}://{HOST}:{silent}")


def test_a_server_that_is_no_redis_is_named():
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(5)
        import threading

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert f"No Redis answers at redis://{HOST}:{port}/0" in refusal(f"redis://{HOST}:{port}")
        thread.join()


def test_a_host_that_is_not_known_is_said():
    assert "connecting to redis.invalid:6379" in refusal("redis://redis.invalid")


def test_a_redis_that_is_starting_is_waited_for(tmp_path):
    from threading import Timer

    starting = RedisServer(tmp_path)
    timer = Timer(1, starting.start)
    timer.start()
    try:
        assert connect(starting.url).ping()
    finally:
        timer.join()
        starting.close()


def waited(tmp_path, starting: RedisServer, caplog, monkeypatch) -> list[str]:
    """Wait for a server that starts after a few attempts; return what is said meanwhile."""
    monkeypatch.setattr(first_contact, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(first_contact, "SAY_SECONDS", 0.5)
    attempts = []

    def start_after_ten() -> None:
        attempts.append(1)
        if len(attempts) == 10:
            starting.start()

    wait_until_usable(RedisAddress.parse(starting.url), on_wait=start_after_ten)
    return [record.getMessage() for record in caplog.records]


def test_a_process_waits_for_a_redis_for_as_long_as_it_takes_and_says_so_now_and_then(
    tmp_path, caplog, monkeypatch
):
    starting = RedisServer(tmp_path)
    try:
        said = waited(tmp_path, starting, caplog, monkeypatch)
    finally:
        starting.close()
    assert 2 <= len(said) <= 4
    assert all(text.startswith("Waiting for Redis. No Redis answers at") for text in said)
    assert all("\n" not in text for text in said)


def test_a_process_that_waits_for_a_redis_of_no_use_ends(server, tmp_path):
    for url in (f"redis://{HOST}:{server.port}", f"redis://idle:s3cret@{HOST}:{server.port}"):
        with pytest.raises(UserError):
            connect(url, wait=True)


def test_a_replica_may_become_the_primary(server, tmp_path):
    with running_redis(tmp_path, replicaof=f"{HOST} {server.port}") as replica:
        problem = passing_problem(RedisAddress.parse(replica.url))
    assert problem is not None
    assert "is a replica" in problem


REFUSALS = [
    AuthenticationError("invalid username-password pair"),
    NoPermissionError("this user has no permissions"),
    RedisConnectionError("x"),
]
REFUSALS[2].__cause__ = ssl.SSLCertVerificationError("self-signed certificate")


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_redis_that_refuses_a_client_is_told_from_one_that_is_away(error):
    assert is_refusal(error)
    assert not may_come(RedisAddress.parse("redis://h"), error)


PASSING = [
    RedisConnectionError("Connection refused"),
    RedisConnectionError("max number of clients reached"),
    RedisTimeoutError("Timeout reading from socket"),
    ReadOnlyError("You can't write against a read only replica."),
    BusyLoadingError("Redis is loading the dataset in memory"),
    OutOfMemoryError("command not allowed when used memory > 'maxmemory'"),
    ResponseError("MISCONF Redis is configured to save RDB snapshots"),
    RedisConnectionError("handshake"),
]
PASSING[-1].__cause__ = ssl.SSLEOFError("EOF occurred in violation of protocol")


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_a_redis_that_is_away_or_serves_nobody_is_not_one_that_refuses(error):
    assert not is_refusal(error)
    assert may_come(RedisAddress.parse("rediss://h"), error)


# --- passwords and rights -------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["", ":wr0ng@", "nobody:s3cret@"])
def test_a_password_that_is_needed_or_wrong_is_said(server, login):
    message = refusal(f"redis://{login}{HOST}:{server.port}")
    assert "needs a password, or refuses this user and password" in message
    assert f"redis://USER:PASSWORD@{HOST}:{server.port}/0" in message
    assert "wr0ng" not in message


@pytest.mark.parametrize(
    "spelling", ["redis://:s3cret@{}/3", "redis://{}?password=s3cret&db=3", "redis://{0}/3?"]
)
def test_every_spelling_of_a_password_is_let_in(server, spelling):
    url = spelling.format(f"{HOST}:{server.port}")
    if "s3cret" not in url:
        url += "username=default&password=s3cret"
    with connect(url) as redis:
        assert redis.client_info()["db"] == 3
        assert publish(make_celery(url, []), MODEL, [MANIFEST.batch(0)]) == 1
        assert redis.keys() != []
        redis.flushdb()


@pytest.mark.parametrize("user", ["idle", "elsewhere"])
def test_a_user_without_rights_is_told_which_to_ask_for(server, user):
    message = refusal(f"redis://{user}:s3cret@{HOST}:{server.port}")
    assert "does not give this user the rights" in message
    assert "+@all ~virnucpro:* &*" in message


@pytest.mark.parametrize("user", ["producer", "deaf", "channels"])
def test_a_user_who_may_not_take_messages_can_produce_but_not_work(server, user):
    url = f"redis://{user}:s3cret@{HOST}:{server.port}"
    connect(url).close()
    assert "the rights that the fleet needs" in refusal(url, as_worker=True)


def test_a_user_without_dangerous_commands_can_work(server):
    connect(f"redis://worker:s3cret@{HOST}:{server.port}", as_worker=True).close()


def test_a_database_out_of_range_is_said(server):
    assert "has no database 4" in refusal(f"redis://:s3cret@{HOST}:{server.port}/4")


# --- servers of another kind ----------------------------------------------------------------------


def test_a_node_of_a_cluster_is_refused(tmp_path):
    with running_redis(tmp_path, cluster_enabled="yes") as node:
        assert "runs as a cluster, which is not supported" in refusal(node.url)


def test_a_replica_is_refused(server, tmp_path):
    with running_redis(tmp_path, replicaof=f"{HOST} {server.port}") as replica:
        assert "is a replica, which cannot be written" in refusal(replica.url)


# --- TLS ------------------------------------------------------------------------------------------


def publish_to(url: str) -> int:
    return publish(make_celery(url, []), MODEL, [MANIFEST.batch(0)])


def test_a_certificate_that_is_not_trusted_is_refused_by_both_clients(secure, certificate):
    url = f"rediss://:s3cret@{HOST}:{secure}/0"
    message = refusal(url)
    assert "its certificate is not trusted: self-signed certificate" in message
    assert "?ssl_ca_certs=/path/ca.pem" in message
    with pytest.raises(RedisError, match="certificate verify failed"):
        publish_to(url)


@pytest.mark.parametrize("options", ["ssl_ca_certs={}", "ssl_cert_reqs=none"])
def test_a_certificate_that_is_trusted_is_accepted_by_both_clients(secure, certificate, options):
    url = f"rediss://:s3cret@{HOST}:{secure}/1?{options.format(certificate.file)}"
    with connect(url, as_worker=True) as redis:
        assert publish_to(url) == 1
        assert redis.keys() != []
        redis.flushdb()


def test_a_certificate_of_another_host_is_refused_by_both_clients(secure, certificate):
    url = f"rediss://:s3cret@localhost:{secure}/0?ssl_ca_certs={certificate.file}"
    assert "Hostname mismatch" in refusal(url)
    with pytest.raises(RedisError, match="Hostname mismatch"):
        publish_to(url)
    with connect(f"{url}&ssl_check_hostname=false") as redis:
        assert redis.ping()


def test_a_file_of_tls_that_is_not_there_is_said(secure):
    assert "a file that ssl_ca_certs, ssl_certfile or ssl_keyfile names is not there" in refusal(
        f"rediss://:s3cret@{HOST}:{secure}/0?ssl_ca_certs=/nowhere/ca.pem"
    )


def test_a_plain_port_behind_rediss_is_said(server):
    url = f"rediss://:s3cret@{HOST}:{server.port}"
    assert "if this port is without TLS, write redis://" in refusal(url)
    # It looks like one that is frozen: a process that waits goes on, and says the same.
    assert "write redis://" in str(passing_problem(RedisAddress.parse(url)))


def test_a_port_with_tls_behind_redis_is_said(secure):
    message = refusal(f"redis://:s3cret@{HOST}:{secure}")
    assert "if this port is with TLS, write rediss://" in message


# --- the whole fleet ------------------------------------------------------------------------------


def test_the_rights_are_tried_without_a_trace(server):
    connect(f"redis://:s3cret@{HOST}:{server.port}/2", as_worker=True).close()
    with Redis(port=server.port, password="s3cret", db=2) as client:
        assert client.dbsize() == 0
