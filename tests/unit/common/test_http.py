"""The HTTP server: answers of handlers, and the errors of an address."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping

import pytest

from common.errors import UserError
from common.http import Answer, is_loopback, serve, split_address


def get(url: str, timeout: float = 10.0) -> tuple[int, str, str]:
    """Return status, content type and body."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_handler_gets_the_query_and_its_answer_is_sent(address):
    def echo(query: Mapping[str, str]) -> Answer:
        return Answer.of_json(dict(query), 202)

    serve("--metrics", address, {"/echo": echo})
    expected = (202, "application/json", '{"pool": "a b"}\n')
    assert get(f"http://{address}/echo?pool=a%20b") == expected


def test_an_empty_value_is_given_to_the_handler_and_two_values_are_refused(address):
    serve("--metrics", address, {"/echo": lambda query: Answer.of_json(dict(query))})
    assert get(f"http://{address}/echo?pool=&model")[2] == '{"pool": "", "model": ""}\n'
    expected = (
        400,
        "application/json",
        '{"error": "A name in the query has two values: give one."}\n',
    )
    assert get(f"http://{address}/echo?pool=a&pool=b") == expected


def test_no_name_is_looked_up_to_serve_at_an_address(address, monkeypatch):
    def look_up(name: str) -> object:
        pytest.fail(f"{name} was looked up")

    monkeypatch.setattr(socket, "gethostbyaddr", look_up)
    serve("--metrics", address, {"/": lambda _: Answer(b"")})
    assert get(f"http://{address}/")[0] == 200


def test_an_unknown_path_names_the_known_ones(address):
    serve("--metrics", address, {"/b": lambda _: Answer(b""), "/a": lambda _: Answer(b"")})
    status, _, body = get(f"http://{address}/nowhere")
    assert (status, body) == (404, "not found; there are: /a /b\n")


def test_a_handler_that_fails_says_so_and_the_next_request_is_answered(address):
    def fails(_query: Mapping[str, str]) -> Answer:
        raise RuntimeError("password")

    serve("--metrics", address, {"/fails": fails, "/works": lambda _: Answer.of_text("yes")})
    status, _, body = get(f"http://{address}/fails")
    assert (status, body) == (500, "RuntimeError\n")
    assert get(f"http://{address}/works")[2] == "yes\n"


def test_a_handler_that_waits_keeps_no_other_request_waiting(address):
    released = threading.Event()

    def waits(_query: Mapping[str, str]) -> Answer:
        released.wait(30)
        return Answer.of_text("at last")

    serve("--metrics", address, {"/waits": waits, "/healthz": lambda _: Answer.of_text("ok")})
    answers: list[str] = []
    slow = threading.Thread(target=lambda: answers.append(get(f"http://{address}/waits", 30)[2]))
    slow.start()
    assert get(f"http://{address}/healthz")[2] == "ok\n"
    assert answers == []
    released.set()
    slow.join()
    assert answers == ["at last\n"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (":9808", ("127.0.0.1", 9808)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("host:80", ("host", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(address, expected):
    assert split_address("--metrics", address) == expected


@pytest.mark.parametrize("address", ["", "9808", "host", "host:", "host:0", "host:65536", "::1:9"])
def test_other_addresses_are_refused_with_the_right_form(address):
    with pytest.raises(UserError, match=r"--metrics .*: not HOST:PORT"):
        split_address("--metrics", address)


def test_an_address_in_use_is_an_error_that_says_so(address):
    serve("--metrics", address, {})
    with pytest.raises(UserError, match=f"--metrics {address}: .*in use"):
        serve("--metrics", address, {})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "a", "")],
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host, expected):
    assert is_loopback(host) is expected
