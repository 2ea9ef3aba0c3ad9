"""A small HTTP server for what programs read of a process: metrics, health, demand."""

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from common.errors import UserError

log = logging.getLogger(__name__)

#: ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT``.
ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/]*)):([0-9]{1,5})", re.ASCII)

#: Seconds that a client has to send its request.
REQUEST_SECONDS = 10.0


class Answer(NamedTuple):
    """The answer to a request."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def of_text(cls, text: str, status: int = 200) -> "Answer":
        return cls(f"{text}\n".encode(), status)

    @classmethod
    def of_json(cls, document: Any, status: int = 200) -> "Answer":
        return cls(f"{json.dumps(document)}\n".encode(), status, "application/json")


#: Returns the answer to a GET request with this query, ``{name: value}``.
Handler = Callable[[Mapping[str, str]], Answer]


#: What to do about an address that cannot be used, where it may be left out.
ADVICE = "Give a free HOST:PORT, or '' for none."


def split_address(option: str, address: str, advice: str = ADVICE) -> tuple[str, int]:
    """Return host and port of an address; without a host, that of this machine alone.

    Args:
        option: what the address was given by, for the error.
        advice: what to give instead, for the error.

    Raises:
        UserError: it has another form.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 2**16:
        raise UserError(
            f"{option} {address}: not HOST:PORT, with a port from 1 to 65535 and brackets around "
            f"an IPv6 address, as in [::1]:9808. {advice}"
        )
    return found[1] or found[2] or "127.0.0.1", int(found[3])


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def serve(option: str, address: str, handlers: Mapping[str, Handler]) -> None:
    """Serve GET requests at ``HOST:PORT`` from threads, until the process ends.

    Args:
        option: what the address was given by, for errors.
        handlers: by their path, such as ``/metrics``. Each request has a thread of its own: one
            that waits keeps no other waiting.

    Raises:
        UserError: the address is invalid or in use.
    """
    host, port = split_address(option, address)

    class Request(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS
        server_version, sys_version = "virnucpro-fleet", ""

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            answer = answered(handlers, url.path, parse_qsl(url.query, keep_blank_values=True))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            log.debug(format, *args)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = AF_INET6 if ":" in host else AF_INET

        def server_bind(self) -> None:
            # HTTPServer's own looks up the name of the address, which may take a minute.
            TCPServer.server_bind(self)
            self.server_name, self.server_port = host, port

        def handle_error(self, request: Any, client_address: Any) -> None:
            log.debug("A request of %s failed.", client_address, exc_info=True)

    try:
        server = Server((host, port), Request)
    except OSError as error:
        raise UserError(f"{option} {address}: {error}. {ADVICE}") from error
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()


def answered(
    handlers: Mapping[str, Handler], path: str, query: Sequence[tuple[str, str]]
) -> Answer:
    """Return the answer of a path's handler; 404 without one, 500 if it fails.

    A query that gives a name two values is answered by 400: no handler takes several.
    """
    handler = handlers.get(path)
    if handler is None:
        return Answer.of_text(f"not found; there are: {' '.join(sorted(handlers))}", 404)
    values = dict(query)
    if len(values) < len(query):
        return Answer.of_json({"error": "A name in the query has two values: give one."}, 400)
    try:
        return handler(values)
    except Exception as error:
        log.exception("GET %s failed.", path)
        return Answer.of_text(f"{type(error).__name__}", 500)
