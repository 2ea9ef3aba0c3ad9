"""Weights on the Hugging Face hub, by revision; and without it, from a cache for reading only."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.hub import Hub, running_hub

NAME = "esm2_t6_8M_UR50D"
REPOSITORY = f"facebook/{NAME}"

FIRST = {"config.json": b'{"model_type": "esm"}', "model.safetensors": b"first" * 9}
SECOND = {**FIRST, "model.safetensors": b"second" * 9}

#: Reads words from its arguments and prints the folder, as ``worker download`` does.
DOWNLOAD = """
import logging, sys
from common.errors import UnavailableError, UserError
from common.model_source import ModelSource
from common.weights.download import download
from pathlib import Path
logging.basicConfig(level=logging.WARNING, format="%(message)s")
try:
    print(download(ModelSource.parse(sys.argv[1]), *map(Path, sys.argv[2:])))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(3 if isinstance(error, UnavailableError) else 2)
assert "torch" not in sys.modules
"""

#: Exit codes of ``DOWNLOAD``.
WRONG, UNAVAILABLE = 2, 3

#: A machine on which nothing can be written, and a user without a name or a home.
READ_ONLY = [
    *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-user"),
    *("--uid", "10001", "--gid", "10001", "--unshare-pid"),
]


class Machine:
    """A machine with a cache, which knows a hub."""

    def __init__(self, hub: Hub, cache: Path) -> None:
        self.hub, self.cache = hub, cache
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **hub.environment(cache),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
        }

    def download(
        self, model: str = NAME, *to: Path, prefix: tuple[str, ...] = (), **more: str
    ) -> "subprocess.CompletedProcess[str]":
        self.hub.asked.clear()
        return subprocess.run(
            [*prefix, sys.executable, "-c", DOWNLOAD, model, *map(str, to)],
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def folder(self, model: str = NAME, *to: Path, **more: str) -> Path:
        done = self.download(model, *to, **more)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub whose main branch has moved on from v1.0."""
    with running_hub() as running:
        running.push(REPOSITORY, {**FIRST, "modeling.py": b"code"}, "main", "v1.0")
        running.push(REPOSITORY, SECOND, "main")
        yield running


@pytest.fixture
def machine(hub, tmp_path) -> Machine:
    return Machine(hub, tmp_path / "cache")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_revision_is_downloaded_and_found_again(machine):
    commit = machine.hub.refs[REPOSITORY, "v1.0"]
    folder = machine.folder(f"{NAME}@v1.0")
    assert weights(folder) == FIRST["model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert machine.folder(f"{NAME}@v1.0") == folder
    assert machine.hub.asked == [f"api/models/{REPOSITORY}/revision/v1.0"]
    assert machine.folder(f"{NAME}@{commit}") == folder
    assert machine.hub.asked == []  # a commit never changes
    assert weights(machine.folder()) == SECOND["model.safetensors"]


def test_a_branch_that_moves_is_downloaded_again(machine):
    machine.folder()
    machine.hub.push(REPOSITORY, FIRST, "main")
    assert weights(machine.folder()) == FIRST["model.safetensors"]


def test_a_download_of_a_moved_branch_that_breaks_off_leaves_the_older_snapshot_in_use(machine):
    folder = machine.folder()
    commit = machine.hub.push(
        REPOSITORY, {**FIRST, "config.json": b'{"model_type": "esm" }'}, "main"
    )
    machine.hub.broken.add("model.safetensors")
    for more in ({}, {}, {"HF_HUB_OFFLINE": "1"}):
        done = machine.download(**more)
        assert (done.returncode, done.stdout.strip()) == (0, str(folder)), done.stderr
        assert ("could not be had" in done.stderr) == (not more)
    machine.hub.broken.clear()
    assert machine.folder().name == commit
    assert machine.folder(HF_HUB_OFFLINE="1").name == commit


def test_a_commit_that_is_there_is_not_downloaded_again_when_a_branch_moves_to_it(machine):
    folder = machine.folder(f"{NAME}@v1.0")
    machine.folder()
    machine.hub.refs[REPOSITORY, "main"] = folder.name
    assert machine.folder() == folder
    assert machine.hub.asked == [f"api/models/{REPOSITORY}/revision/main"]
    assert machine.folder(HF_HUB_OFFLINE="1") == folder


def test_a_revision_that_the_hub_does_not_have_is_said(machine):
    done = machine.download(f"{NAME}@v9")
    assert done.returncode == WRONG
    assert f"error: {REPOSITORY} has no revision v9 on {machine.hub.url}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_gets_the_files_and_keeps_them_without_a_hub(machine, tmp_path):
    to = tmp_path / "to"
    assert machine.folder(f"{NAME}@v1.0", to) == to
    assert weights(to) == FIRST["model.safetensors"]
    assert not (to / "model.safetensors").is_symlink()
    assert not machine.cache.exists()
    assert machine.folder(f"{NAME}@v1.0", to) == to
    assert machine.hub.asked == [f"api/models/{REPOSITORY}/revision/v1.0"]
    assert machine.folder(f"{NAME}@v1.0", to, HF_ENDPOINT="http://127.0.0.1:9") == to


def test_without_a_hub_one_line_says_how_to_get_the_weights(machine):
    machine.hub.silent.set()
    started = time.monotonic()
    done = machine.download()
    assert time.monotonic() - started < 30  # it is 6 s
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: The weights of {REPOSITORY} are not in the local cache")
    assert f"worker download --model {NAME} --to FOLDER" in line
    assert "HF_HOME" in line
    assert "HF_ENDPOINT" in line
    assert done.returncode == UNAVAILABLE
    refused = machine.download(HF_ENDPOINT="http://127.0.0.1:9")
    assert refused.returncode == UNAVAILABLE
    offline = machine.download(HF_HUB_OFFLINE="1")
    assert offline.returncode == WRONG  # somebody wants it so
    [line] = offline.stderr.splitlines()
    assert "HF_HUB_OFFLINE is set" in line
    assert f"worker download --model {NAME} --to FOLDER" in line


def test_a_half_downloaded_snapshot_is_not_taken_for_the_model(machine):
    folder = machine.folder()
    (folder / "model.safetensors").unlink()
    done = machine.download(HF_HUB_OFFLINE="1")
    assert "are not in the local cache" in done.stderr
    assert weights(machine.folder()) == SECOND["model.safetensors"]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
@pytest.mark.parametrize("home", ["/", None], ids=["home /", "no home"])
def test_a_cache_for_reading_only_is_enough_also_when_the_branch_has_moved(machine, home):
    folder = machine.folder()
    machine.environment.pop("HOME", None)
    more = {} if home is None else {"HOME": home}
    done = machine.download(prefix=tuple(READ_ONLY), **more)
    assert (done.returncode, Path(done.stdout.strip())) == (0, folder), done.stderr
    assert done.stderr == ""
    machine.hub.push(REPOSITORY, FIRST, "main")
    done = machine.download(prefix=tuple(READ_ONLY), **more)
    assert (done.returncode, Path(done.stdout.strip())) == (0, folder), done.stderr
    [line] = done.stderr.splitlines()
    assert "Read-only file system" in line
    assert str(folder) in line


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_a_cache_that_cannot_be_written_is_said_in_one_line(machine, tmp_path):
    done = machine.download(prefix=tuple(READ_ONLY), HF_HOME=str(tmp_path / "none"))
    [line] = done.stderr.splitlines()
    assert "which cannot be written" in line
    assert "Give HF_HOME a folder that this user may write" in line
