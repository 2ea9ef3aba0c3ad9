"""As much of a Kubernetes API as Helm's ``lookup`` of a Secret asks for."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRETS = {
    **{"name": "secrets", "singularName": "", "namespaced": True},
    **{"kind": "Secret", "verbs": ["get"]},
}


@contextmanager
def cluster_with_secret(namespace: str, name: str, data: Mapping[str, str]) -> Iterator[str]:
    """Serve one Secret until the block ends; yield the address.

    Args:
        data: what the Secret has, in base64.
    """
    metadata = {"name": name, "namespace": namespace}
    pages = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRETS]},
        f"/api/v1/namespaces/{namespace}/secrets/{name}": {
            **{"apiVersion": "v1", "kind": "Secret", "metadata": metadata},
            "data": dict(data),
        },
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path.partition("?")[0])
            body = json.dumps(found or {"kind": "Status", "reason": "NotFound", "code": 404})
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
