"""An S3 that fails like a real one, or is almost one: a proxy in front of a real server.

Requests pass unchanged, including ``Host``, which their signatures cover; one whose header is to be
ignored is signed again.
"""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import Message
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.swift import S3Server

HOST = "127.0.0.1"

#: Headers about the connection, not about the content.
OF_ONE_CONNECTION = {"connection", "expect", "keep-alive", "transfer-encoding"}

OF_SIGNATURE = {"authorization", "x-amz-date", "x-amz-content-sha256"}

CONTINUATION = re.compile(rb"<NextContinuationToken>.*?</NextContinuationToken>")

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message></Error>"""


class Fault(Enum):
    """A fault of a request: an error answer (status, code and message), or another failure."""

    INTERNAL_ERROR = (500, "InternalError", "We encountered an internal error.")
    SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
    ACCESS_DENIED = (403, "AccessDenied", "Access Denied.")
    MISSING_MD5 = (400, "MissingContentMD5", "Missing required header: Content-MD5.")
    NOT_IMPLEMENTED = (501, "NotImplemented", "A header you provided is not implemented.")
    INVALID_ARGUMENT = (400, "InvalidArgument", "Unsupported header.")
    WRONG_REGION = (400, "AuthorizationHeaderMalformed", "The region 'us-east-1' is wrong.")
    REDIRECT = (301, "PermanentRedirect", "Address this bucket at the specified endpoint.")
    PRECONDITION_FAILED = (412, "PreconditionFailed", "A precondition did not hold.")
    EXPIRED = (400, "ExpiredToken", "The provided token has expired.")
    NO_BUCKET = (404, "NoSuchBucket", "The specified bucket does not exist.")
    #: An answer as if the rule's header were not in the request.
    IGNORED = "ignored"
    #: The first answer to the same request again: a listing that lags behind.
    STALE = "stale"
    #: An answer without the tokens by which a listing goes on, as of servers without its version 2.
    CUT = "cut"
    #: A reset of the connection after half of the request's body.
    RESET = "reset"
    #: A late answer.
    STALL = "stall"


@dataclass(frozen=True)
class Answer:
    """An answer of the real server."""

    status: int
    headers: list[tuple[str, str]]
    data: bytes


@dataclass
class Rule:
    """A fault for requests with a method and ``part`` in their path."""

    fault: Fault
    method: str
    part: str
    times: int  # number of requests that are still to fail
    seconds: float = 0.0  # of a stall
    header: str = ""  # which the requests have; empty: any
    hits: int = 0
    #: The first answers, for ``STALE``.
    answers: "dict[str, Answer]" = field(default_factory=dict)

    def takes(self, method: str, path: str, headers: Message) -> bool:
        is_of_kind = method == self.method and self.part in path
        return self.times > 0 and is_of_kind and (not self.header or self.header in headers)


@dataclass
class S3Proxy:
    """A proxy in front of a server on a loopback port, which breaks requests by rules."""

    server: S3Server
    port: int = 0
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def fail(
        self,
        fault: Fault,
        method: str,
        part: str,
        *,
        times: int = 10**9,
        seconds: float = 0.0,
        header: str = "",
    ) -> Rule:
        """Break the next requests of a kind; the returned rule counts them."""
        rule = Rule(fault, method, part, times, seconds, header)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        with self._lock:
            self._rules.clear()

    @property
    def target(self) -> int:
        """The real server's port."""
        port = urlsplit(self.server.endpoint_url).port
        assert port is not None
        return port

    def verdict(self, method: str, path: str, headers: Message) -> Rule | None:
        """Return the first rule for a request, and count it; None if there is none."""
        with self._lock:
            for rule in self._rules:
                if rule.takes(method, path, headers):
                    rule.times -= 1
                    rule.hits += 1
                    return rule
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def pass_on(self) -> None:
        rule = self.proxy.verdict(self.command, self.path, self.headers)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match rule:
            case None:
                self._answer(self._relay(body))
            case Rule(fault=Fault.IGNORED):
                self._answer(self._relay(body, self._headers_without(rule.header, body)))
            case Rule(fault=Fault.STALE):
                self._answer(rule.answers.setdefault(self.path, self._relay(body)))
            case Rule(fault=Fault.CUT):
                answer = self._relay(body)
                self._answer(replace(answer, data=CONTINUATION.sub(b"", answer.data)))
            case Rule(fault=Fault.RESET):
                self._reset(body)
            case Rule(fault=Fault.STALL):
                time.sleep(rule.seconds)
                self._answer(self._relay(body))
            case Rule():
                status, code, message = rule.fault.value
                text = ERROR.format(code=code, message=message).encode()
                headers = [
                    ("Content-Type", "application/xml"),
                    ("x-amz-bucket-region", "eu-west-1"),
                ]
                self._answer(Answer(status, headers, text))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def _relay(self, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        upstream = http.client.HTTPConnection(HOST, self.proxy.target)
        self._send(upstream, body, headers or self.headers)
        answer = upstream.getresponse()
        data = answer.read()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in OF_ONE_CONNECTION]
        upstream.close()
        return Answer(answer.status, kept, data)

    def _headers_without(self, name: str, body: bytes) -> dict[str, str]:
        """Return the request's headers without one, and with a signature of what is left."""
        dropped = {name.lower(), *OF_SIGNATURE, *OF_ONE_CONNECTION}
        kept = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
        url = f"http://{self.headers['Host']}{self.path}"
        request = AWSRequest(self.command, url, headers=kept, data=body)
        server = self.proxy.server
        credentials = Credentials(server.access_key, server.secret_key)
        S3SigV4Auth(credentials, "s3", server.region).add_auth(request)
        return dict(request.headers.items())

    def _send(
        self, upstream: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str]
    ) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in OF_ONE_CONNECTION:
                upstream.putheader(name, value)
        upstream.endheaders(body)

    def _reset(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(HOST, self.proxy.target)
        self._send(upstream, body[: len(body) // 2], self.headers)
        for end in (upstream.sock, self.connection):
            # With a linger time of 0, closing resets the connection.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        upstream.close()
        self.close_connection = True

    def _answer(self, answer: Answer) -> None:
        data = answer.data
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Do nothing: the real server has a log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Ignore errors of clients that left, for instance after a stall."""


@contextmanager
def s3_proxy(s3: S3Server, proxy: S3Proxy | None = None) -> Iterator[S3Proxy]:
    """Run a proxy in front of an S3 server on this machine; one of another class may be given."""
    proxy = proxy or S3Proxy(s3)
    server = Server((HOST, 0), type("ProxyHandler", (Handler,), {"proxy": proxy}))
    proxy.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
