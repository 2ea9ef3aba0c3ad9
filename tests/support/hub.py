"""A Hugging Face hub of one's own: the parts of its HTTP interface that downloads use."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"

Files = Mapping[str, bytes]


@dataclass
class Hub:
    """A hub with repositories, each with commits, and with branches and tags that name them."""

    port: int = 0
    commits: dict[tuple[str, str], Files] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    #: The paths of all requests.
    asked: list[str] = field(default_factory=list)
    #: Set while requests are to get no answer.
    silent: threading.Event = field(default_factory=threading.Event)
    #: Names of files that cannot be had, though they are listed.
    broken: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the variables with which its clients use this hub, and a cache."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def push(self, repository: str, files: Files, *refs: str) -> str:
        """Make a commit of a repository, which branches and tags name from now on."""
        text = repr(sorted(files.items())) + "".join(refs)
        commit = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[repository, commit] = dict(files)
        for ref in refs:
            self.refs[repository, ref] = commit
        return commit

    def push_folder(self, repository: str, folder: Path, *refs: str) -> str:
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return self.push(repository, files, *refs)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(path)
        if self.hub.silent.is_set():
            threading.Event().wait(30)
            self.close_connection = True
            return
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            self._about("/".join(parts[2:4]), parts[4:])
        else:
            self._file("/".join(parts[:2]), parts[2:])

    do_HEAD = do_GET  # noqa: N815

    def _about(self, repository: str, rest: list[str]) -> None:
        """Answer what a revision is, or which files it has."""
        kind, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        commit = self._commit(repository, revision)
        if commit is None:
            return
        files = self.hub.commits[repository, commit]
        if kind == "tree":
            self._json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": digest_of(data)}
                    for name, data in files.items()
                ]
            )
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repository, "sha": commit, "siblings": siblings})

    def _file(self, repository: str, rest: list[str]) -> None:
        assert rest[0] == "resolve", self.path
        commit = self._commit(repository, "/".join(rest[1:-1]))
        if commit is None:
            return
        data = self.hub.commits[repository, commit].get(rest[-1])
        if data is None or rest[-1] in self.hub.broken:
            self._refuse("EntryNotFound")
            return
        headers = {"ETag": f'"{digest_of(data)}"', "X-Repo-Commit": commit}
        self._answer(200, data, headers, "application/octet-stream")

    def _commit(self, repository: str, revision: str) -> str | None:
        """Return the commit of a revision; None, with an answer, if there is none."""
        commit = self.hub.refs.get((repository, revision), revision)
        if (repository, commit) in self.hub.commits:
            return commit
        known = any(repository == name for name, _ in self.hub.commits)
        self._refuse("RevisionNotFound" if known else "RepoNotFound")
        return None

    def _refuse(self, code: str) -> None:
        self._answer(404, code.encode(), {"X-Error-Code": code, "X-Error-Message": code})

    def _json(self, document: Any) -> None:
        self._answer(200, json.dumps(document).encode(), {}, "application/json")

    def _answer(
        self, status: int, data: bytes, headers: Mapping[str, str], kind: str = "text/plain"
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Do nothing."""


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Ignore errors of clients that left."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub on a loopback port."""
    hub = Hub()
    server = Server((HOST, 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
