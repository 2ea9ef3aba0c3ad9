"""The units of ``deploy/systemd``: systemd reads them, and they confine their processes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from workers.process.supervisor import GRACE_SECONDS

SYSTEMD = ROOT / "deploy" / "systemd"
UNITS = ["virnucpro-worker@.service", "virnucpro-keeper.service", "virnucpro-flower.service"]

#: The exposure that `systemd-analyze security` finds, of 10, at most: as docs/deploy.md has it.
EXPOSURE = {"virnucpro-worker@.service": 1.9, "virnucpro-keeper.service": 1.2}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A system with these units, their programs, and systemd's own targets."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    folder = tmp_path_factory.mktemp("root")
    own, theirs = folder / "etc/systemd/system", folder / "usr/lib/systemd/system"
    programs = folder / "opt/virnucpro/bin"
    for place in (own, theirs, programs):
        place.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(SYSTEMD / unit, own)
    for unit in Path("/usr/lib/systemd/system").glob("*.target"):
        shutil.copy(unit, theirs)
    for name in ("worker", "producer"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    return folder


def analyze(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line(root, unit):
    done = analyze(root, "verify", "--man=no", unit.replace("@", "@650M"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_that_systemd_does_not_know_would_be_noticed(root):
    text = (SYSTEMD / UNITS[1]).read_text().replace("ProtectHome=", "ProtectHouse=")
    (root / "etc/systemd/system/wrong.service").write_text(text)
    assert "'ProtectHouse'" in analyze(root, "verify", "wrong.service").stderr


@pytest.mark.parametrize("unit", UNITS)
def test_little_is_exposed(root, unit):
    done = analyze(root, "security", "--offline=yes", unit)
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE.get(unit, 1.2)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_ends_its_process_as_it_wants_to_be_ended(unit):
    text = (SYSTEMD / unit).read_text()
    setting = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert setting["KillMode"] == "mixed"
    assert int(setting["TimeoutStopSec"]) >= 45 > GRACE_SECONDS
    assert setting["Restart"] == "always"
    assert setting["RestartPreventExitStatus"] == "2"


def test_the_examples_name_the_variables_of_the_units():
    worker = (SYSTEMD / "virnucpro-worker@.service").read_text()
    named = set(re.findall(r"^(\w+)=", (SYSTEMD / "worker.env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)\}", worker)) == named
