"""Containers of the rendered chart, started here as a kubelet would: with the variables, volumes
and user of the manifest, and a root that is read-only.

``bwrap`` is the container engine. The root has the programs of this machine; those that the image
has and this machine has not come from a folder. The network is this machine's.
"""

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.chart import Object, Pod, find_all, name_of, unavailable
from tests.support.processes import wait_until

#: Seconds from SIGTERM until a pod is killed, where its manifest does not say.
GRACE_SECONDS = 30


def variables(
    container: Object, objects: Sequence[Object], fields: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return a container's variables, with the values of the rendered Secrets.

    Args:
        fields: values of a pod's fields by their paths. Variables of other fields are left out.
    """
    secrets = {name_of(item): item["data"] for item in find_all(objects, "Secret")}
    found: dict[str, str] = {}
    for row in container["env"]:
        if "value" in row:
            found[row["name"]] = re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], row["value"])
        elif "secretKeyRef" in row["valueFrom"]:
            source = row["valueFrom"]["secretKeyRef"]
            found[row["name"]] = base64.b64decode(secrets[source["name"]][source["key"]]).decode()
        elif (path := row["valueFrom"]["fieldRef"]["fieldPath"]) in (fields or {}):
            found[row["name"]] = (fields or {})[path]
    return found


@dataclass(frozen=True)
class Sandbox:
    """One container of a pod.

    Attributes:
        volumes: the folder of each volume that it mounts.
        programs: a folder with programs of the image.
    """

    pod: Pod
    container: Object
    environment: Mapping[str, str]
    volumes: Mapping[str, Path]
    programs: Path

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs ``words`` in the container."""
        user = self.pod.spec["securityContext"]
        environment = {"PATH": "/programs:/usr/bin:/bin", **self.environment}
        return [
            *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--as-pid-1"),
            *("--uid", str(user["runAsUser"]), "--gid", str(user["runAsGroup"])),
            *("--die-with-parent", "--cap-drop", "ALL", "--clearenv"),
            *("--ro-bind", "/usr", "/usr", "--dev", "/dev", "--proc", "/proc"),
            *(
                word
                for name in ("bin", "lib", "lib64")
                for word in ("--symlink", f"usr/{name}", f"/{name}")
            ),
            *("--ro-bind", str(self.programs), "/programs"),
            *(word for mount in self.container["volumeMounts"] for word in self._mount(mount)),
            *("--remount-ro", "/"),
            *(word for name, value in environment.items() for word in ("--setenv", name, value)),
            *words,
        ]

    def _mount(self, mount: Object) -> tuple[str, str, str]:
        how = "--ro-bind" if mount.get("readOnly") else "--bind"
        return how, str(self.volumes[mount["name"]]), mount["mountPath"]

    @contextmanager
    def running(self, log: Path) -> Iterator[psutil.Process]:
        """Run the container's command until the block ends, then end it as a kubelet would.

        Yields its process 1.
        """
        words = [*self.container["command"], *self.container["args"]]
        with log.open("ab") as output:
            process = subprocess.Popen(self.command(words), stdout=output, stderr=output)
        try:
            [first] = wait_until(lambda: psutil.Process(process.pid).children(), 30)
            yield first
            first.terminate()
            process.wait(self.pod.spec.get("terminationGracePeriodSeconds", GRACE_SECONDS))
        finally:
            process.kill()  # process 1 of the container dies with it
            process.wait()

    def probe(self, name: str) -> bool:
        """Run a probe in the container once, for as long as a kubelet lets it run."""
        probe = self.container[name]
        try:
            done = subprocess.run(
                self.command(probe["exec"]["command"]),
                capture_output=True,
                timeout=probe["timeoutSeconds"],
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def need_engine() -> None:
    """Skip the test, or fail it where all must run, without what runs containers here."""
    if shutil.which("bwrap") is None:
        unavailable("needs bwrap (apt install bubblewrap)")
