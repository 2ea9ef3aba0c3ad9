"""A container of a rendered pod as a process here: its words, variables, mounts and probes.

bubblewrap stands for the kubelet, and this machine's Python for the image: the root is for reading
only, the user has no name, and there is nothing but the mounts that the manifest has.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.chart import ROOT, Object, Pod, env_of, references

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")

#: What has a place of its own inside.
NOT_OF_THE_HOST = {"dev", "proc", "sys", "tmp"}

#: Seconds that a worker has to end.
END_SECONDS = 40.0


@dataclass(frozen=True)
class Node:
    """What a node of the cluster gives to a pod's containers."""

    #: Folders by the names of volumes.
    volumes: Mapping[str, Path]
    #: Values by the keys of Secrets.
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: Variables that are other ones here, such as the address of Redis.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: A folder that has the same name inside.
    shared: Path | None = None

    def run(
        self, pod: Pod, name: str, words: Sequence[str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a container to its end, or other words in one."""
        command = self.command(pod.container(name), words)
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    @contextmanager
    def running(self, pod: Pod, name: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a container until the block ends, and have it end well."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(pod.container(name)), stdout=output, stderr=output
            )
        try:
            yield process
            [inside] = psutil.Process(process.pid).children()
            inside.terminate()
            assert process.wait(END_SECONDS) == 0, log.read_text()
        finally:
            process.kill()  # process 1 of the container dies with it
            process.wait()

    def probe(self, pod: Pod, name: str, probe: str) -> bool:
        """Return what a container's probe says."""
        return self.run(pod, name, pod.container(name)[probe]["exec"]["command"]).returncode == 0

    def command(self, container: Object, words: Sequence[str] | None = None) -> list[str]:
        """Return the command that runs a container."""
        start = [*(container.get("command") or ["worker"]), *(container.get("args") or [])]
        if start[:2] == ["tini", "--"]:  # bubblewrap's process 1 does its work
            start = start[2:]
        variables = self.variables_of(container)
        return [
            *("bwrap", "--unshare-user", "--uid", "10001", "--gid", "10001", "--unshare-pid"),
            *("--unshare-ipc", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL"),
            *("--clearenv", "--tmpfs", "/", *host_folders(), "--proc", "/proc", "--dev", "/dev"),
            *self.mounts_of(container),
            *("--ro-bind", str(ROOT), str(ROOT), "--remount-ro", "/", "--chdir", "/tmp"),
            *(word for name, value in variables.items() for word in ("--setenv", name, value)),
            *(start if words is None else words),
        ]

    def mounts_of(self, container: Object) -> Iterator[str]:
        for mount in container["volumeMounts"]:
            kind = "--ro-bind" if mount.get("readOnly") else "--bind"
            yield from (kind, str(self.volumes[mount["name"]]), mount["mountPath"])
        if self.shared is not None:
            yield from ("--bind", str(self.shared), str(self.shared))

    def variables_of(self, container: Object) -> dict[str, str]:
        found = {
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name, value in env_of(container).items():
            if (said := self.value_of(value, found)) is not None:
                found[name] = said
        return {**found, **self.variables}

    def value_of(self, value: Any, before: Mapping[str, str]) -> str | None:
        """Return a variable's value, as the kubelet makes it of the manifest; None: it has none."""
        if isinstance(value, str):
            known = {name: before[name] for name in references(value)}
            return re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], value)
        if "fieldRef" in value:
            assert value["fieldRef"]["fieldPath"] == "metadata.name", value
            return "pod-1"
        secret = value["secretKeyRef"]
        return (
            self.secrets.get(secret["key"])
            if secret.get("optional")
            else self.secrets[secret["key"]]
        )


def host_folders() -> Iterator[str]:
    """Yield options that bring this machine's folders into an empty root, for reading only."""
    for path in sorted(Path("/").iterdir()):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir() and path.name not in NOT_OF_THE_HOST:
            yield from ("--ro-bind", str(path), str(path))
