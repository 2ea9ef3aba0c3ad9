"""Redis of the rendered chart, running here, on a port of this machine that is free."""

import base64
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.chart import NAMESPACE, RELEASE, Object, Pod, find, pod_of, unavailable
from tests.support.containers import Sandbox, need_engine, variables
from tests.support.processes import wait_until
from tests.support.redis_servers import HOST, embedded_program, free_port
from tests.support.tls import make_signed_certificate

#: What the image has of BusyBox, in place of this machine's programs.
APPLETS = ("sh", "cat", "cut", "dirname", "grep", "sed", "sha256sum", "tr")

#: Where the chart's addresses and pods have Redis, and the certificate of its authority.
ADDRESS = f"{RELEASE}-redis.{NAMESPACE}.svc:6379"
AUTHORITY = "/etc/virnucpro/redis/ca.crt"


@dataclass(frozen=True)
class ChartRedis:
    """The container of Redis, and how it is reached here."""

    sandbox: Sandbox
    folder: Path
    port: int
    objects: Sequence[Object]

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        """Run it until the block ends, and yield its process once it is ready."""
        with self.sandbox.running(self.log) as process:
            wait_until(lambda: self.sandbox.probe("readinessProbe"), 30)
            yield process

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"

    def environment(self, pod: Pod, container: str) -> dict[str, str]:
        """Return a container's variables, with the address that Redis has here."""
        found = variables(pod.container(container), self.objects)
        url = found["VIRNUCPRO_BROKER_URL"]
        assert ADDRESS in url
        authority = str(self.folder / "tls" / "ca.crt")
        url = url.replace(ADDRESS, f"{HOST}:{self.port}").replace(AUTHORITY, authority)
        return {**found, "VIRNUCPRO_BROKER_URL": url}


def chart_redis(
    objects: Sequence[Object], folder: Path, *options: str, file_kilobytes: int | None = None
) -> ChartRedis:
    """Return the Redis of rendered objects, with its volumes in a folder.

    Args:
        options: more options of the server.
        file_kilobytes: the largest file that it can write, as if its disk were full then.
    """
    need_engine()
    pod = pod_of(objects, "StatefulSet", "redis")
    container = pod.container("redis")
    volumes = {mount["name"]: folder / mount["name"] for mount in container["volumeMounts"]}
    for volume in volumes.values():
        volume.mkdir(parents=True)
    users = find(objects, "ConfigMap", "redis")["data"]
    for name, text in users.items():
        (volumes["users"] / name).write_text(text)
    port = free_port()
    programs = folder / "programs"
    programs.mkdir()
    if "tls" in volumes:
        write_certificate(volumes["tls"])
        server = shutil.which("redis-server") or unavailable("needs redis-server, which has TLS")
        options = ("--port", "0", "--tls-port", str(port), *options)
    else:
        server, options = embedded_program(), ("--port", str(port), *options)
    client = shutil.which("redis-cli") or unavailable("needs redis-cli (apt install redis-tools)")
    shutil.copy(server, programs / "server")
    write_program(
        programs / "valkey-server", server_script(("--bind", HOST, *options), file_kilobytes)
    )
    write_program(programs / "valkey-cli", f'exec {client} -p {port} "$@"')
    if busybox := shutil.which("busybox"):
        for name in APPLETS:
            (programs / name).symlink_to(busybox)
    return ChartRedis(
        Sandbox(pod, container, variables(container, objects), volumes, programs),
        folder,
        port,
        objects,
    )


def server_script(options: Sequence[str], file_kilobytes: int | None = None) -> str:
    """Return a script that starts the server with more options.

    It leaves out the one by which Valkey reads new certificates: Redis, which has TLS here, does
    not know it.
    """
    blocks = "unlimited" if file_kilobytes is None else 2 * file_kilobytes
    return f"""trap '' XFSZ
ulimit -f {blocks}
skip=
for word; do
    shift
    if [ "$word" = --tls-auto-reload-interval ]; then skip=1
    elif [ "$skip" ]; then skip=
    else set -- "$@" "$word"
    fi
done
exec /programs/server "$@" {" ".join(options)}"""


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/usr/bin/env sh\n{script}\n")
    path.chmod(0o755)


def write_certificate(folder: Path) -> None:
    """Write the files that the chart asks for in the Secret of Redis's certificate."""
    authority, certificate = make_signed_certificate(folder)
    for name, path in (
        ("ca.crt", authority),
        ("tls.crt", certificate.file),
        ("tls.key", certificate.key_file),
    ):
        shutil.copy(path, folder / name)


def password_of(objects: Sequence[Object], user: str) -> str:
    data = find(objects, "Secret", "secrets")["data"]
    return base64.b64decode(data[f"{user}-password"]).decode()
