"""An API server of Kubernetes that keeps objects and does nothing with them, for Helm's own work.

It has what ``helm install``, ``upgrade`` and ``uninstall`` ask for: discovery, and objects to make,
read, list, watch, patch and delete. It checks nothing, and a Job ends as soon as it is made.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.kube_discovery import Object, discovery, kind_at
from tests.support.kube_protobuf import MAGIC, read_secret

HOST = "127.0.0.1"


@dataclass
class Cluster:
    """The objects by their paths, and what was done to them."""

    port: int = 0
    objects: dict[str, Object] = field(default_factory=dict)
    #: (verb, kind, name) of all changes, in their order, without those of Helm's own records.
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    #: Names of Jobs that fail.
    failing: set[str] = field(default_factory=set)
    version: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def get(self, kind: str, name: str) -> Object | None:
        with self.lock:
            found = [o for o in self.objects.values() if o["kind"] == kind]
        return next((o for o in found if o["metadata"]["name"] == name), None)

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig.json"
        context = {"cluster": "c", "user": "u", "namespace": "fleet"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": context}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://{HOST}:{self.port}"}}],
            "users": [{"name": "u", "user": {}}],
        }
        path.write_text(json.dumps(config))
        return path

    def put(self, verb: str, path: str, item: Object) -> Object:
        with self.lock:
            self.version += 1
            metadata = item["metadata"]
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            metadata["resourceVersion"] = str(self.version)
            if item["kind"] == "Job":
                failed = metadata["name"] in self.failing
                end = {"type": "Failed" if failed else "Complete", "status": "True"}
                item["status"] = {"failed" if failed else "succeeded": 1, "conditions": [end]}
            self.objects[path] = item
            self.note(verb, item)
            return item

    def delete(self, path: str) -> Object | None:
        with self.lock:
            item = self.objects.pop(path, None)
            if item is not None:
                self.version += 1
                self.note("delete", item)
            return item

    def note(self, verb: str, item: Object) -> None:
        if item.get("type") != "helm.sh/release.v1":
            self.changes.append((verb, item["kind"], item["metadata"]["name"]))


def merged(old: Object, new: Object) -> Object:
    """Return an object with a merge patch; lists are replaced."""
    result = {name: value for name, value in old.items() if new.get(name, value) is not None}
    for name, value in new.items():
        if isinstance(value, dict):
            result[name] = merged(old.get(name) or {}, value)
        elif value is not None:
            result[name] = value
    return result


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = url.path.strip("/"), {k: v[0] for k, v in parse_qs(url.query).items()}
        if (found := discovery(path)) is not None:
            return self.answer(200, found)
        if (item := self.cluster.objects.get(path)) is not None:
            return self.answer(200, item)
        group, kind = kind_at(path)
        if kind is None:
            return self.missing()
        if query.get("watch") in ("1", "true"):
            return self.watch(path, query)
        version = group.removeprefix("apis/").removeprefix("api/")
        items = list(self.matching(path, query))
        metadata = {"resourceVersion": str(self.cluster.version)}
        listed = {"apiVersion": version, "kind": f"{kind}List", "metadata": metadata}
        return self.answer(200, {**listed, "items": items})

    def matching(self, path: str, query: dict[str, str]) -> Iterator[Object]:
        wanted = dict(s.split("=") for s in query.get("labelSelector", "").split(",") if "=" in s)
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        with self.cluster.lock:
            for where, item in sorted(self.cluster.objects.items()):
                labels = item["metadata"].get("labels") or {}
                if where.rpartition("/")[0] != path or not wanted.items() <= labels.items():
                    continue
                if name in ("", item["metadata"]["name"]):
                    yield item

    def watch(self, path: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        before: dict[str, Object] = {}
        bookmark = "sendInitialEvents" in query
        deadline = time.monotonic() + float(query.get("timeoutSeconds", 30))
        while time.monotonic() < deadline:
            now = {item["metadata"]["uid"]: item for item in self.matching(path, query)}
            events = [("ADDED", now[uid]) for uid in now.keys() - before.keys()]
            events += [("DELETED", before[uid]) for uid in before.keys() - now.keys()]
            if bookmark:
                events.append(("BOOKMARK", self.end_of_list(path)))
                bookmark = False
            try:
                for kind, item in events:
                    self.wfile.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
                self.wfile.flush()
            except OSError:
                return
            before = now
            time.sleep(0.05)

    def end_of_list(self, path: str) -> Object:
        group, kind = kind_at(path)
        version = group.removeprefix("apis/").removeprefix("api/")
        annotations = {"k8s.io/initial-events-end": "true"}
        metadata = {"resourceVersion": str(self.cluster.version), "annotations": annotations}
        return {"apiVersion": version, "kind": kind, "metadata": metadata}

    def do_POST(self) -> None:
        item = self.body()
        path = f"{urlsplit(self.path).path.strip('/')}/{item['metadata']['name']}"
        if path in self.cluster.objects:
            return self.status(409, "AlreadyExists", f"{item['kind']} already exists")
        return self.answer(201, self.cluster.put("create", path, item))

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        self.answer(200, self.cluster.put("update", path, self.body()))

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        patch, old = self.body(), self.cluster.objects.get(path)
        if old is None and "apply" not in self.headers["Content-Type"]:
            return self.missing()
        verb = "create" if old is None else "update"
        return self.answer(200, self.cluster.put(verb, path, merged(old or {}, patch)))

    def do_DELETE(self) -> None:
        self.body()
        item = self.cluster.delete(urlsplit(self.path).path.strip("/"))
        if item is None:
            return self.missing()
        return self.answer(200, {"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def body(self) -> Object:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if data.startswith(MAGIC):
            return read_secret(data) if self.command != "DELETE" else {}
        return dict(json.loads(data)) if data else {}

    def missing(self) -> None:
        self.status(404, "NotFound", f"{self.path} not found")

    def status(self, code: int, reason: str, message: str) -> None:
        status = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code}
        self.answer(code, {**status, "reason": reason, "message": message})

    def answer(self, code: int, item: Object) -> None:
        data = json.dumps(item).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    handler = type("ClusterHandler", (Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer((HOST, 0), handler)
    server.daemon_threads = True
    cluster.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
