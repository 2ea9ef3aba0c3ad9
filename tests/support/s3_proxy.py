"""An S3 that fails as real ones do: a proxy in front of a real server.

Requests pass unchanged, ``Host`` included, which their signatures cover.
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"

#: Headers that are about one connection, and not about what goes over it.
OF_ONE_CONNECTION = {"connection", "expect", "keep-alive", "transfer-encoding"}

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message></Error>"""


class Fault(Enum):
    """What happens to a request in place of its passing through; with status and code if that is
    an answer.
    """

    INTERNAL_ERROR = (500, "InternalError", "We encountered an internal error.")
    SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
    ACCESS_DENIED = (403, "AccessDenied", "Access Denied.")
    #: The connection is reset when half of the request's body has gone to the server.
    RESET = "reset"
    #: The answer is late.
    STALL = "stall"


@dataclass
class Rule:
    """A fault for requests of a method whose path has ``part`` in it."""

    fault: Fault
    method: str
    part: str
    times: int  # requests that it is for yet
    seconds: float = 0.0  # of a stall
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.part in path


@dataclass
class S3Proxy:
    """In front of a server on a loopback port; breaks what its rules say."""

    target: int
    port: int = 0
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def fail(
        self, fault: Fault, method: str, part: str, *, times: int = 10**9, seconds: float = 0.0
    ) -> Rule:
        """Break the next so many requests of a kind; the rule counts them."""
        rule = Rule(fault, method, part, times, seconds)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        with self._lock:
            self._rules.clear()

    def verdict(self, method: str, path: str) -> Rule | None:
        """The first rule for a request, which is then used up by one."""
        with self._lock:
            for rule in self._rules:
                if rule.takes(method, path):
                    rule.times -= 1
                    rule.hits += 1
                    return rule
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def pass_on(self) -> None:
        rule = self.proxy.verdict(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match rule:
            case None:
                self._relay(body)
            case Rule(fault=Fault.RESET):
                self._reset(body)
            case Rule(fault=Fault.STALL):
                time.sleep(rule.seconds)
                self._relay(body)
            case Rule():
                status, code, message = rule.fault.value
                text = ERROR.format(code=code, message=message).encode()
                self._answer(status, [("Content-Type", "application/xml")], text)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def _relay(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(HOST, self.proxy.target)
        self._send(upstream, body)
        answer = upstream.getresponse()
        data = answer.read()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in OF_ONE_CONNECTION]
        upstream.close()
        self._answer(answer.status, headers, data)

    def _send(self, upstream: http.client.HTTPConnection, body: bytes) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in OF_ONE_CONNECTION:
                upstream.putheader(name, value)
        upstream.endheaders(body)

    def _reset(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(HOST, self.proxy.target)
        self._send(upstream, body[: len(body) // 2])
        for end in (upstream.sock, self.connection):
            # With no time to linger, a close is a reset.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        upstream.close()
        self.close_connection = True

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing: the server behind has a log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has left, as clients of a stalled or killed connection do."""


@contextmanager
def s3_proxy(endpoint_url: str) -> Iterator[S3Proxy]:
    """A proxy in front of the S3 server at a loopback URL."""
    port = urlsplit(endpoint_url).port
    assert port is not None
    proxy = S3Proxy(port)
    server = Server((HOST, 0), type("ProxyHandler", (Handler,), {"proxy": proxy}))
    proxy.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
