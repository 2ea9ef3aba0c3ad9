"""A double of Amazon's STS: credentials for a role, against a token, that expire.

The keys are those of a real S3 server; whether a session is over is decided by ``SessionsOnly``, a
proxy in front of that server.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.support.s3_proxy import HOST, Fault, Rule, S3Proxy, s3_proxy
from tests.support.swift import S3Server

ROLE = "arn:aws:iam::123456789012:role/embeddings"

ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult>
<SubjectFromWebIdentityToken>system:serviceaccount:fleet:worker</SubjectFromWebIdentityToken>
<AssumedRoleUser><Arn>{role}/session</Arn><AssumedRoleId>ID:session</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>{expiration}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""

REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>
<Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>Incorrect token</Message>
</Error></ErrorResponse>"""


@dataclass
class Sts:
    """Sessions of a role, each good for some seconds."""

    s3: S3Server
    seconds: float
    #: The token that proves who asks, as Kubernetes writes it into a file.
    identity: str = field(default_factory=lambda: f"identity-{secrets.token_hex(8)}")
    port: int = 0
    #: The session tokens that were given, with the time when each is over.
    sessions: dict[str, float] = field(default_factory=dict)

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables of a process with a role, and no key among them."""
        file = folder / "token"
        file.write_text(self.identity)
        return {
            "AWS_ROLE_ARN": ROLE,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
            "AWS_ENDPOINT_URL_STS": f"http://{HOST}:{self.port}",
            "AWS_DEFAULT_REGION": self.s3.region,
        }

    def answer(self, asked: dict[str, list[str]]) -> tuple[int, str]:
        """Return status and text of the answer to a request."""
        if asked.get("WebIdentityToken") != [self.identity] or asked.get("RoleArn") != [ROLE]:
            return 400, REFUSAL
        token = f"session-{secrets.token_hex(16)}"
        self.sessions[token] = time.monotonic() + self.seconds
        # boto3 asks again where less than ten minutes are left.
        end = datetime.now(UTC) + timedelta(minutes=5)
        return 200, ANSWER.format(
            role=ROLE,
            key=self.s3.access_key,
            secret=self.s3.secret_key,
            token=token,
            expiration=end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


@dataclass
class SessionsOnly(S3Proxy):
    """An S3 server that takes no key without a session, and no session that is over."""

    sts: Sts | None = None
    refused: int = 0

    def verdict(self, method: str, path: str, headers: Message) -> Rule | None:
        assert self.sts is not None
        if self.sts.sessions.get(headers.get("x-amz-security-token", ""), 0.0) > time.monotonic():
            return super().verdict(method, path, headers)
        self.refused += 1
        return Rule(Fault.EXPIRED, method, "", 1)


class Handler(BaseHTTPRequestHandler):
    sts: Sts

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status, text = self.sts.answer(parse_qs(body))
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Do nothing."""


@contextmanager
def s3_for_roles(s3: S3Server, seconds: float) -> Iterator[tuple[Sts, SessionsOnly]]:
    """Run an STS, and an S3 server that knows its sessions, each good for some seconds."""
    sts = Sts(s3, seconds)
    server = ThreadingHTTPServer((HOST, 0), type("StsHandler", (Handler,), {"sts": sts}))
    sts.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with s3_proxy(s3, SessionsOnly(s3, sts=sts)) as proxy:
            assert isinstance(proxy, SessionsOnly)
            yield sts, proxy
    finally:
        server.shutdown()
        server.server_close()
