"""A real S3 server for integration tests: OpenStack Swift with s3api, on loopback.

Swift's four servers keep everything (configuration, rings, objects, logs) in one folder.  Each
is a process that runs this same file: see `_serve`.
"""

import ctypes
import importlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_HOST = "127.0.0.1"
_START_SECONDS = 60
_PACKAGES = {"account": "account", "container": "container", "object": "obj", "proxy": "proxy"}
_FILTERS = ("catch_errors", "gatekeeper", "proxy_logging", "s3api", "tempauth", "bulk", "slo")

# - workers = 0: each server is one process that serves by itself: nothing forks, so killing it
#   leaves nothing behind, and Swift never changes user, so `user` is not needed.
# - The time-outs are far above Swift's defaults (0.5 s to 10 s): on a busy machine those turn
#   into 503s, or into container updates put off to a daemon that does not run here, that is,
#   into listings that miss an object.  And errors must never disable the only replica.
# - log_udp_port: Swift always logs to syslog too; the discard port keeps it out of the host's.
# - No `cache` filter: it would talk to whatever memcached runs on this host.
_CONFIGURATION = """\
[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = 0
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
conn_timeout = 30
node_timeout = 60
container_update_timeout = 60
error_suppression_limit = 1000000
log_udp_host = {host}
log_udp_port = 9
account_autocreate = true
location = {server.region}
user_test_tester = {server.secret_key} .admin

[pipeline:main]
pipeline = {filters} {role}-server

[app:{role}-server]
use = egg:swift#{role}
"""


@dataclass(frozen=True)
class S3Server:
    """The address of a running S3 server, and its credentials."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str

    def environment(self) -> dict[str, str]:
        """Environment variables that make an AWS SDK use this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }


@contextmanager
def swift_server(folder: Path) -> Iterator[S3Server]:
    """Run Swift in `folder` until the block ends; the logs stay there.

    The servers die with the thread that enters the block, at the latest.
    """
    folder = folder.resolve()  # the servers change directory
    (folder / "devices" / "d1").mkdir(parents=True)
    _require_xattrs(folder / "devices")
    with ExitStack() as stack:
        ports = {role: stack.enter_context(_reserved_port()) for role in _PACKAGES}
        url = f"http://{_HOST}:{ports['proxy']}"
        server = S3Server(url, "test:tester", secrets.token_hex(16), "us-east-1")
        _write_configuration(folder, ports, server)
        started = dict(stack.enter_context(_process(folder, role, ports)) for role in ports)
        _wait_until_ready(started, ports, server)
        yield server


def _require_xattrs(devices: Path) -> None:
    """Check that the folder supports extended attributes, where Swift keeps metadata."""
    try:
        os.setxattr(devices, "user.probe", b"")
    except OSError as error:
        message = f"Swift needs user xattrs, and {devices} takes none: try another --basetemp"
        raise RuntimeError(message) from error


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Yield a port that the kernel gives to no other process, but on which Swift can listen.

    Swift listens with SO_REUSEPORT, so it can bind a port that is also bound here.  Closing
    this socket first would leave a race that fails silently: two Swifts that were given the
    same port would both listen on it, and share its connections.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((_HOST, 0))
        yield reservation.getsockname()[1]


def _write_configuration(folder: Path, ports: dict[str, int], server: S3Server) -> None:
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = test\n")
    for role, port in ports.items():
        names = _FILTERS if role == "proxy" else ()
        values = {"role": role, "port": port, "server": server, "filters": " ".join(names)}
        text = _CONFIGURATION.format(host=_HOST, folder=folder, **values)
        text += "".join(f"\n[filter:{name}]\nuse = egg:swift#{name}\n" for name in names)
        (folder / f"{role}-server.conf").write_text(text)


@contextmanager
def _process(
    folder: Path, role: str, ports: dict[str, int]
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    # -P: this file's folder must not come first in sys.path, where this file would be `swift`.
    command = [sys.executable, "-P", __file__, str(os.getpid()), role, str(folder)]
    command.append(json.dumps(ports))
    path = folder / f"{role}.log"
    with path.open("wb") as log:
        # A session of its own: Ctrl-C is for pytest, which then ends the block.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield path, process
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(
    processes: dict[Path, subprocess.Popen[bytes]], ports: dict[str, int], server: S3Server
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(server, ports):
        ended = [log for log, process in processes.items() if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            tails = [f"{log}:\n{log.read_text()[-2000:]}" for log in ended or processes]
            raise RuntimeError("Swift did not start\n" + "\n".join(tails))
        time.sleep(0.02)


def _answers(server: S3Server, ports: dict[str, int]) -> bool:
    """Return whether all servers listen (ListBuckets reaches only two) and accept a request."""
    for port in ports.values():
        with socket.socket() as client:
            if client.connect_ex((_HOST, port)) != 0:
                return False
    # Imported here to start the servers faster.  A boto3 client would obey AWS_* and proxies.
    from botocore import auth, awsrequest, credentials, exceptions, httpsession

    request = awsrequest.AWSRequest(method="GET", url=f"{server.endpoint_url}/")
    key = credentials.Credentials(server.access_key, server.secret_key)
    auth.S3SigV4Auth(key, "s3", server.region).add_auth(request)
    session = httpsession.URLLib3Session(timeout=_START_SECONDS)
    try:
        return session.send(request.prepare()).status_code == 200
    except exceptions.HTTPClientError:
        return False


def _serve(parent: int, role: str, folder: Path, ports: dict[str, int]) -> None:
    """Run one of Swift's servers, in a process that `_process` started."""
    pr_set_pdeathsig = 1  # the kernel kills this process when its parent dies, even by SIGKILL
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent died before this server started")
    if role == "proxy":  # the only one that reads the rings
        for name in ("account", "container", "object"):
            _write_ring(folder / f"{name}.ring.gz", ports[name])
    sys.argv = [role, str(folder / f"{role}-server.conf"), "--verbose"]  # to log to stderr
    importlib.import_module(f"swift.{_PACKAGES[role]}.server").main()


def _write_ring(path: Path, port: int) -> None:
    """Write a ring with one partition, one replica and one device."""
    builder = importlib.import_module("swift.common.ring").RingBuilder(0, 1, 0)
    device = {"region": 1, "zone": 1, "ip": _HOST, "port": port, "device": "d1", "weight": 1}
    builder.add_dev(device)
    builder.rebalance()
    builder.get_ring().save(str(path))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
