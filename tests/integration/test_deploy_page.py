"""The commands of ``docs/deploy.md`` and ``docs/kubernetes.md`` work as written; those that need an
engine are named here.
"""

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from common.wire.redis_client import connect
from tests.conftest import ROOT
from tests.support.processes import wait_until
from tests.support.redis_servers import HOST, free_port

PAGE = ROOT / "docs" / "deploy.md"
KUBERNETES = ROOT / "docs" / "kubernetes.md"

#: Beginnings of commands that no test here runs: an engine, the network, an init system, a cluster.
#: ``make images`` builds the images, `docker-compose config` reads the services
#: (``unit/docker/test_compose.py``), systemd the units (``unit/deploy/test_systemd.py``), and Helm
#: and kubectl what is for a cluster (``chart/test_page.py``, ``chart/test_other_pages.py``).
#: Slurm runs its script in ``faults/test_slurm.py``, and miniwdl its workflow in
#: ``integration/test_pipelines.py``, which runs Nextflow's scripts too.
ELSEWHERE = (
    *(
        "docker ",
        "FILES=$PWD ",
        "systemctl ",
        "useradd ",
        "python3 -m venv ",
        "/opt/virnucpro/bin/pip ",
    ),
    *("install -D ", "install --mode "),
    *("helm ", "kubectl ", "aws ", "(umask 077; printf %s ", "rm access-key-id "),
    *("sbatch ", "scancel ", "HF_HOME=/shared/weights worker download ", "producer submit "),
    *("nextflow ", "miniwdl ", "python -m tests.chart.drill "),
)


def lines() -> list[str]:
    """Return the commands of both pages, without what they read."""
    pages = PAGE.read_text() + KUBERNETES.read_text()
    pages = re.sub(r"(<<'END'\n).*?^END\n", r"\1", pages, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sh\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def here(*beginnings: str) -> list[str]:
    return [line for line in lines() if line.startswith(beginnings)]


def sh(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script in a folder that has the project's ``docker`` and ``deploy``."""
    for name in ("docker", "deploy"):
        if not (folder / name).exists():
            shutil.copytree(ROOT / name, folder / name)
    return subprocess.run(
        ["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_command_is_run_here_or_named():
    run_here = here("(umask 077; sh docker/", "PRODUCER_PASSWORD=", "openssl ", "redis-server ")
    assert len(run_here) == 7
    others = [line for line in lines() if line not in run_here]
    assert [line for line in others if not line.startswith(ELSEWHERE)] == []


def test_files_that_are_installed_are_there():
    named = re.findall(r"\b(?:deploy|docker)/[\w./@-]+", "\n".join(lines()))
    assert len(named) > 6
    assert [path for path in named if not (ROOT / path).exists() and path != "docker/.env"] == []


def test_the_settings_of_compose_are_made_for_their_owner_alone(tmp_path):
    [command] = here("(umask 077; sh docker/")
    done = sh(command, tmp_path)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "docker" / ".env"
    assert made.stat().st_mode & 0o777 == 0o600
    assert "PRODUCER_PASSWORD=\n" not in made.read_text()


@pytest.mark.slow
def test_the_redis_of_the_page_has_users_and_tls(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (apt install redis-server)")
    users, *authority = here("PRODUCER_PASSWORD=", "openssl ")
    script = "\n".join([users.replace("$(openssl rand -hex 24)", "0123456789abcdef"), *authority])
    done = sh(script.replace("DNS:redis.example", f"IP:{HOST}"), tmp_path)
    assert done.returncode == 0, done.stderr
    plain, secure = here("redis-server ")
    for command, old, scheme, query in (
        (plain, "redis-server", "redis", ""),
        (secure, "--tls-port 6379", "rediss", f"?ssl_ca_certs={tmp_path}/ca.pem"),
    ):
        port = free_port()
        new = f"redis-server --port {port}" if scheme == "redis" else f"--tls-port {port}"
        words = [*command.replace(old, new).split(), "--bind", HOST]
        with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda port=port: answers(port), 20)
                url = f"{scheme}://keeper:0123456789abcdef@{HOST}:{port}/0{query}"
                connect(url).close()
                with Redis(host=HOST, port=port) as anybody, pytest.raises((RedisError, OSError)):
                    anybody.ping()
            finally:
                server.terminate()


@pytest.mark.slow
def test_a_password_changes_as_the_page_says_while_redis_runs(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (apt install redis-server)")
    [users], old, new = here("PRODUCER_PASSWORD="), 2 * "01234567", 2 * "89abcdef"
    assert sh(users.replace("$(openssl rand -hex 24)", old), tmp_path).returncode == 0
    orders = re.findall(r"`(ACL (?:SETUSER|SAVE)[^`]*)`", PAGE.read_text())
    assert len(orders) == 4
    port = free_port()
    [command] = [line for line in here("redis-server ") if "--tls" not in line]
    words = [*command.split(), "--port", str(port), "--bind", HOST]

    def good() -> list[str]:
        return [word for word in (old, new) if may_log_in(port, "keeper", word)]

    for after_restart in (False, True):
        with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: answers(port), 20)
                if after_restart:
                    assert good() == [new]
                    continue
                with Redis(host=HOST, port=port, username="admin", password=old) as admin:
                    for order, expected in zip(orders[::2], ([old, new], [new]), strict=True):
                        asked = order.replace(">NEW", f">{new}").replace("<OLD", f"<{old}")
                        admin.execute_command(*asked.split())
                        admin.execute_command(*orders[1].split())
                        assert good() == expected
            finally:
                server.terminate()


def may_log_in(port: int, user: str, password: str) -> bool:
    with Redis(host=HOST, port=port, username=user, password=password) as client:
        try:
            return client.ping()
        except RedisError:
            return False


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
