"""The units of ``deploy/systemd``: systemd reads them, and they confine their processes."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.local.processes import start_dependent, stop
from tests.conftest import ROOT
from tests.support.caches import caches_with
from tests.support.processes import START_SECONDS, clean_environment, wait_until
from tests.support.redis_servers import free_port
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


def test_a_worker_keeps_all_that_it_downloads_or_compiles_in_its_cache_folder(tmp_path):
    text = (SYSTEMD / "virnucpro-worker@.service").read_text()
    [folder] = re.findall(r"^CacheDirectory=(.+)$", text, re.MULTILINE)
    words = " ".join(re.findall(r"^Environment=(.+)$", text, re.MULTILINE)).split()
    variables = dict(word.replace("%C", str(tmp_path)).split("=", 1) for word in words)
    for cache in caches_with(variables):
        assert cache.is_relative_to(tmp_path / folder)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_ends_its_process_as_it_wants_to_be_ended(unit):
    text = (SYSTEMD / unit).read_text()
    setting = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert setting["KillMode"] == "mixed"
    assert int(setting["TimeoutStopSec"]) >= 45 > GRACE_SECONDS
    assert setting["Restart"] == "always"
    assert setting["RestartPreventExitStatus"] == "2"


def environment_of(unit: str) -> dict[str, str]:
    """Return the variables that a unit reads, if its files are the examples."""
    found: dict[str, str] = {}
    for file in re.findall(r"^EnvironmentFile=/etc/virnucpro/(\S+)$", unit, re.MULTILINE):
        text = (SYSTEMD / f"{file.replace('-%i', '')}.example").read_text()
        found |= dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_the_examples_name_the_variables_of_a_unit(unit):
    text = (SYSTEMD / unit).read_text()
    command = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)[0]
    environment = environment_of(text)
    assert set(re.findall(r"\$\{?([A-Z_]+)", command)) <= environment.keys()
    user = re.findall(r"virnucpro-(\w+)", unit)[0]
    assert environment["VIRNUCPRO_BROKER_URL"].startswith(f"rediss://{user}:PASSWORD@")


def test_flower_reads_no_secret_but_its_own():
    files = re.findall(r"^EnvironmentFile=(.*)$", (SYSTEMD / UNITS[2]).read_text(), re.MULTILINE)
    assert files == ["/etc/virnucpro/flower.env"]
    assert "AWS_" not in (SYSTEMD / "flower.env.example").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_with_the_examples_a_process_comes_to_wait_for_its_redis(unit, tmp_path):
    """Nothing listens at its address; only that, the store and the credentials are changed."""
    text = (SYSTEMD / unit).read_text()
    example = environment_of(text)
    own = {k: v for k, v in example.items() if not k.startswith(("AWS_", "VIRNUCPRO_BROKER_URL"))}
    if "VIRNUCPRO_STORE" in own:
        own["VIRNUCPRO_STORE"] = f"file://{tmp_path}/store"
    if "VIRNUCPRO_FLOWER_ADDRESS" in own:
        own["VIRNUCPRO_FLOWER_ADDRESS"] = f"127.0.0.1:{free_port()}"
    own |= {"VIRNUCPRO_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    name, *words = shlex.split(re.findall(r"^ExecStart=\S+/(.*)$", text, re.MULTILINE)[0])
    values = {"${GPUS}": ["none"], "${MODEL}": [own.get("MODEL", "")]}
    values |= {"$KEEPER_OPTIONS": [*own.get("KEEPER_OPTIONS", "").split(), "--metrics", ""]}
    command = [word for key in words for word in values.get(key, [key])]
    module = {"producer": "producer.cli", "worker": "workers.cli"}[name]
    log = tmp_path / "log"
    with log.open("wb") as output:
        words = [sys.executable, "-m", module, *command]
        process = start_dependent(words, env=clean_environment(**own), output=output)
    try:
        wait_until(
            lambda: process.poll() is not None or b"Waiting for Redis" in log.read_bytes(),
            START_SECONDS,
        )
        assert process.poll() is None, log.read_text()
    finally:
        stop(process, 40)
