"""Images built without a daemon, on a base that is made here, and run without privileges.

``buildah`` builds in a storage of its own, so that several builds do not meet, and nothing stays.
``bwrap`` runs an image as an engine would: its entry point as process 1, its variables and its
user, a read-only root file system, no capability, and only ``/tmp`` to write to.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import wait_until

ROOT = Path(__file__).parents[2]

TOOLS = ("buildah", "debootstrap", "bwrap", "setpriv")

BASE = "localhost/base"
RELEASE = "bookworm"

NOT_IN_SLIM = tuple(f"usr/share/{name}" for name in ("doc", "info", "lintian", "locale", "man"))

#: A line of the file with pip's settings, by which the test finds what leaked into a layer.
MARKER = "s3cretmarker-of-the-index"


def missing_tools() -> list[str]:
    """Return what this machine lacks to build images."""
    return [tool for tool in TOOLS if shutil.which(tool) is None] + (
        [] if os.geteuid() == 0 else ["root"]
    )


@dataclass(frozen=True)
class Builder:
    """Images in a storage of their own."""

    folder: Path

    def run(self, *words: object) -> str:
        """Run buildah; return what it printed.

        Raises:
            RuntimeError: it failed, with the end of its output.
        """
        where = ("--root", self.folder / "root", "--runroot", self.folder / "run")
        command = ["buildah", *where, "--storage-driver", "overlay", *words]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"buildah {words[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout.strip()

    def make_base(self) -> None:
        """Make Debian's smallest system, as its slim images are, with this machine's archive."""
        system = self.folder / "base"
        subprocess.run(
            ["debootstrap", "--variant=minbase", RELEASE, str(system), debian_mirror()],
            check=True,
            capture_output=True,
        )
        # As the slim images of Debian have it.
        (system / "etc/dpkg/dpkg.cfg.d/docker").write_text(
            "".join(f"path-exclude /{folder}/*\n" for folder in NOT_IN_SLIM)
        )
        for unneeded in ("var/cache/apt", "var/lib/apt/lists", *NOT_IN_SLIM):
            shutil.rmtree(system / unneeded, ignore_errors=True)
        for place in ("sources.list.d/debian.sources", "apt.conf.d/99artifact-registry"):
            if (source := Path("/etc/apt", place)).is_file():
                shutil.copy(source, system / "etc/apt" / place)
                (system / "etc/apt/sources.list").unlink(missing_ok=True)
        container = self.run("from", "scratch")
        self.run("copy", container, system, "/")
        self.run("commit", "--rm", container, BASE)
        shutil.rmtree(system)

    def build(self, target: str, **arguments: str) -> str:
        """Build a stage of the Dockerfile; return the image's name."""
        name = "-".join([f"localhost/{target}", *arguments.values()]).lower()
        settings, mounts = pip_settings()
        secret = self.folder / "pip.conf"
        secret.write_text(settings)
        given = {"BASE": BASE, **arguments}
        self.run(
            *("build", "--isolation", "chroot", "--pull-never", "--format", "docker", "--layers"),
            *("--file", ROOT / "docker" / "Dockerfile", "--target", target, "--tag", name),
            *(word for key, value in given.items() for word in ("--build-arg", f"{key}={value}")),
            *(word for path in mounts for word in ("--volume", f"{path}:{mounts[path]}:ro")),
            *("--secret", f"id=pip,src={secret}", ROOT),
        )
        return name

    def config(self, image: str) -> dict[str, Any]:
        """Return an image's configuration, as an engine shows it."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))["Docker"]
        return found

    @contextmanager
    def system(self, image: str) -> Iterator[Path]:
        """Mount an image's file system."""
        container = self.run("from", "--pull-never", image)
        try:
            system = Path(self.run("mount", container))
            for above in system.parents:
                if above.is_relative_to(self.folder):
                    above.chmod(above.stat().st_mode | 0o011)  # the image runs as another user
            yield system
        finally:
            self.run("umount", container)
            self.run("rm", container)

    def layers(self, image: str) -> list[Path]:
        """Return an image's layers as tar files, the lowest first."""
        folder = self.folder / f"layers-{image.rpartition('/')[2]}"
        self.run("push", "--disable-compression", image, f"dir:{folder}")
        manifest = json.loads((folder / "manifest.json").read_text())
        return [folder / layer["digest"].rpartition(":")[2] for layer in manifest["layers"]]

    def remove(self) -> None:
        self.run("rm", "--all")
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self.folder, ignore_errors=True)


def debian_mirror() -> str:
    """Return the archive that this machine uses."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    text = sources.read_text() if sources.is_file() else Path("/etc/apt/sources.list").read_text()
    found = re.search(r"^URIs:\s*(\S+)|^deb (?:\[.*\] )?(\S+)", text, re.MULTILINE)
    assert found is not None, "no archive in /etc/apt"
    return found[1] or found[2]


def pip_settings() -> tuple[str, dict[str, str]]:
    """Return this machine's settings of pip as a file, and where its local paths are to be mounted.

    Mounted where they are, they would be in the way of the packages that are installed.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    mounts: dict[str, str] = {}
    for name, value in re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        words = value.replace("\\n", " ").split()
        for number, word in enumerate(words):
            scheme, path = re.fullmatch(r"(file://)?(.*)", word, re.DOTALL).groups(default="")
            if path.startswith("/") and Path(path).exists():
                # Pages of an index name files beside its folder.
                above, last = (path[:-7], "/simple") if path.endswith("/simple") else (path, "")
                inside = mounts.setdefault(above, f"/mnt/{len(mounts)}")
                words[number] = f"{scheme}{inside}{last}"
        settings[name] = " ".join(words)
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join([f"# {MARKER}", "[global]", *lines, ""]), mounts


@dataclass(frozen=True)
class Container:
    """A command of an image, as it runs."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def stop(self, seconds: float = 45) -> int:
        """Send SIGTERM to process 1 of the container; return its exit code."""
        [first] = psutil.Process(self.process.pid).children()
        first.terminate()
        return self.process.wait(seconds)


@dataclass(frozen=True)
class Image:
    """An image that is mounted, ready to be run."""

    system: Path
    config: Mapping[str, Any]

    def command(
        self,
        words: Sequence[object],
        tmp: Path,
        environment: Mapping[str, str],
        *,
        entrypoint: Sequence[str] | None = None,
        shared: Path | None = None,
    ) -> list[str]:
        """Return the command that runs the image as its user, with ``tmp`` as its ``/tmp``.

        Args:
            shared: a folder that has the same name inside.
        """
        settings = self.config["config"]
        user, group = settings["User"].split(":")
        variables = dict(text.split("=", 1) for text in settings["Env"]) | dict(environment)
        start = settings["Entrypoint"] if entrypoint is None else entrypoint
        places = [] if shared is None else ["--bind", str(shared), str(shared)]
        return [
            # A user without an entry in /etc/passwd, who owns nothing in the image.
            *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
            *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--as-pid-1"),
            *("--die-with-parent", "--cap-drop", "ALL", "--clearenv"),
            *("--ro-bind", str(self.system), "/", "--dev", "/dev", "--proc", "/proc"),
            *("--bind", str(tmp), "/tmp", *places, "--chdir", settings["WorkingDir"]),
            *(word for name, value in variables.items() for word in ("--setenv", name, value)),
            *(start or []),
            *(str(word) for word in words),
        ]

    def run(
        self, *words: object, tmp: Path, environment: Mapping[str, str], **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of the image to its end."""
        return subprocess.run(
            self.command(words, tmp, environment, **options),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    @contextmanager
    def running(
        self, *words: object, tmp: Path, environment: Mapping[str, str], log: Path, **options: Any
    ) -> Iterator[Container]:
        """Run a command of the image until the block ends."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(words, tmp, environment, **options), stdout=output, stderr=output
            )
        try:
            wait_until(lambda: psutil.Process(process.pid).children(), 30)
            yield Container(process, log)
        finally:
            process.kill()  # process 1 of the container dies with it
            process.wait()

    def is_healthy(
        self, tmp: Path, environment: Mapping[str, str], port: int | None = None
    ) -> bool:
        """Run the image's health check; ``port`` takes the place of the keeper's."""
        kind, *test = self.config["config"]["Healthcheck"]["Test"]
        words = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        if port is not None:
            words = [word.replace("9808", str(port)) for word in words]
        return self.run(*words, tmp=tmp, environment=environment, entrypoint=()).returncode == 0


def files_of(layer: Path) -> Iterator[str]:
    """Yield the names in a layer."""
    with tarfile.open(layer) as archive:
        for member in archive:
            yield member.name
