"""A double of the API of Kubernetes, over HTTPS: it patches annotations of pods, and nothing else.

It refuses what the real one refuses by its source: a token that is not good (401), anything but
``patch`` on ``pods/status`` of one namespace, for which alone there is a right (403), a body of
another type (415), and a deletion cost that is not a 32-bit integer in its shortest form (422).
"""

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.tls import Certificate, make_signed_certificate

HOST = "127.0.0.1"

NAMESPACE = "fleet"

COST = "controller.kubernetes.io/pod-deletion-cost"

#: ``/api/v1/namespaces/NAMESPACE/pods/POD/SUBRESOURCE``.
POD = re.compile(r"/api/v1/namespaces/([^/?]+)/pods/([^/?]+)(?:/(\w+))?")


@dataclass
class KubernetesApi:
    """The pods of a namespace, by name, with their annotations."""

    account: Path  # the folder of the service account that may ask
    port: int = 0
    token: str = "token-1"
    pods: dict[str, dict[str, str]] = field(default_factory=dict)
    patched: list[tuple[str, str]] = field(default_factory=list)  # pods with their costs, in order
    asked: list[str] = field(default_factory=list)  # every request, with its path
    connections: int = 0
    has_right: bool = True
    refused: set[str] = field(default_factory=set)  # pods of which no change is taken
    status: int | None = None  # of every answer, if it is to fail
    is_lossy: bool = False  # whether what was done is answered by an error
    hang: float = 0.0  # seconds before each answer
    trickle: float = 0.0  # seconds between two bytes of an answer
    trickled: str = "body"  # or head: what is sent so
    padding: int = 0  # bytes that each answer has more

    def add(self, *pods: str) -> None:
        for pod in pods:
            self.pods[pod] = {}

    def cost(self, pod: str) -> int:
        """Return a pod's deletion cost as a ReplicaSet reads it."""
        return int(self.pods[pod].get(COST, "0"))

    def costs(self) -> dict[str, int]:
        return {pod: self.cost(pod) for pod in self.pods}

    def rotate_token(self, token: str, *, known: bool = True) -> None:
        """Let another token be the good one, and the client have it."""
        self.token = token
        if known:
            (self.account / "token").write_text(f"{token}\n")

    def answer(self, method: str, path: str, kind: str, token: str, body: bytes) -> tuple[int, Any]:
        """Return status and document of the answer to a request."""
        self.asked.append(f"{method} {path}")
        time.sleep(self.hang)
        if self.status is not None:
            return self.status, error_of(self.status, "the double was told to fail")
        if token != f"Bearer {self.token}":
            return 401, error_of(401, "Unauthorized")
        found = POD.fullmatch(path)
        place = found.groups() if found else ("", "", "")
        if not self.has_right or method != "PATCH" or (place[0], place[2]) != (NAMESPACE, "status"):
            return 403, error_of(403, f'pods "{place[1]}" is forbidden: cannot {method} {path}')
        if kind != "application/merge-patch+json":
            return 415, error_of(415, f"the body of the request was in an unknown format: {kind}")
        if place[1] not in self.pods:
            return 404, error_of(404, f'pods "{place[1]}" not found')
        if place[1] in self.refused:
            return 409, error_of(409, "the object has been modified")
        return self._patch(place[1], json.loads(body)["metadata"]["annotations"])

    def _patch(self, pod: str, annotations: dict[str, Any]) -> tuple[int, Any]:
        cost = annotations.get(COST, "0")
        if not isinstance(cost, str) or not re.fullmatch(r"0|-?[1-9][0-9]{0,9}", cost):
            return 422, error_of(422, "must be a 32bit integer")
        self.pods[pod] |= annotations
        self.patched.append((pod, cost))
        if self.is_lossy:
            return 504, error_of(504, "the answer was lost")
        return 200, {"kind": "Pod", "metadata": {"name": pod, "annotations": self.pods[pod]}}


def error_of(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message}


class Handler(BaseHTTPRequestHandler):
    api: KubernetesApi
    protocol_version = "HTTP/1.1"  # connections stay open, as the real API's do

    def setup(self) -> None:
        super().setup()
        self.api.connections += 1

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = (self.headers.get("Content-Type", ""), self.headers.get("Authorization", ""))
        status, document = self.api.answer(self.command, self.path, *headers, body)
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text) + self.api.padding))
        if self.api.trickle and self.api.trickled == "head":
            self.flush_headers()
            self._send(b"X-Slow: " + b"x" * 1000)
        self.end_headers()
        self._send(text + b" " * self.api.padding)

    def _send(self, text: bytes) -> None:
        if not self.api.trickle:
            self.wfile.write(text)
            return
        for byte in text:
            self.wfile.write(bytes([byte]))
            time.sleep(self.api.trickle)

    do_PATCH = do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Do nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        found = super().get_request()
        self.open.append(found[0])
        return found

    def close(self) -> None:
        """Stop serving, and end all connections, as an API server that is replaced does."""
        self.shutdown()
        self.server_close()
        for connection in self.open:
            with suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Do nothing: a client may end a connection, or refuse the certificate."""


@contextmanager
def kubernetes_api(folder: Path, pods: Sequence[str] = ()) -> Iterator[KubernetesApi]:
    """Run the double; in ``folder``, the files of a service account that it knows are written."""
    authority, certificate = make_signed_certificate(folder)
    account = folder / "serviceaccount"
    account.mkdir()
    (account / "ca.crt").write_bytes(authority.read_bytes())
    (account / "namespace").write_text(NAMESPACE)
    api = KubernetesApi(account)
    api.add(*pods)
    api.rotate_token(api.token)
    with served(api, certificate):
        yield api


@contextmanager
def served(api: KubernetesApi, certificate: Certificate) -> Iterator[None]:
    """Serve a double with a certificate, at its port if it has one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.file, certificate.key_file)
    server = Server((HOST, api.port), type("ApiHandler", (Handler,), {"api": api}))
    # The handshake is the first read of each connection's own thread, and keeps no other waiting.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    api.port = server.server_port
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield
    finally:
        server.close()


@pytest.fixture
def api(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[KubernetesApi]:
    """The double, with the pods that the test's module has in ``PODS``."""
    folder = tmp_path / "api"
    folder.mkdir()
    with kubernetes_api(folder, request.module.PODS) as running:
        yield running
