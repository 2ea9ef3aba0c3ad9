"""An S3 that fails like a real one: a proxy in front of a real server.

Requests pass unchanged, including ``Host``, which their signatures cover.
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

#: Headers about the connection, not about the content.
OF_ONE_CONNECTION = {"connection", "expect", "keep-alive", "transfer-encoding"}

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message></Error>"""


class Fault(Enum):
    """A fault of a request: an error answer (status, code and message), or another failure."""

    INTERNAL_ERROR = (500, "InternalError", "We encountered an internal error.")
    SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
    ACCESS_DENIED = (403, "AccessDenied", "Access Denied.")
    #: A reset of the connection after half of the request's body.
    RESET = "reset"
    #: A late answer.
    STALL = "stall"


@dataclass
class Rule:
    """A fault for requests with a method and ``part`` in their path."""

    fault: Fault
    method: str
    part: str
    times: int  # number of requests that are still to fail
    seconds: float = 0.0  # of a stall
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.part in path


@dataclass
class S3Proxy:
    """A proxy in front of a server on a loopback port, which breaks requests by rules."""

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
        """Break the next requests of a kind; the returned rule counts them."""
        rule = Rule(fault, method, part, times, seconds)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        with self._lock:
            self._rules.clear()

    def verdict(self, method: str, path: str) -> Rule | None:
        """Return the first rule for a request, and count it; None if there is none."""
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
            # With a linger time of 0, closing resets the connection.
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
        """Do nothing: the real server has a log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Ignore errors of clients that left, for instance after a stall."""


@contextmanager
def s3_proxy(endpoint_url: str) -> Iterator[S3Proxy]:
    """Run a proxy in front of the S3 server at a loopback URL."""
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
