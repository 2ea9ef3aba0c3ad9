"""Where pods listen: on all of their addresses, of either version of IP."""

import socket
import sys
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from common.local.processes import start_dependent, stop
from tests.support.chart import env_of, pod_of, render, unavailable
from tests.support.processes import START_SECONDS, clean_environment, wait_until
from tests.support.redis_servers import free_port


def addresses(values) -> dict[str, str]:
    """Return the address at which each kind of pod listens."""
    objects = render(values)
    flower = pod_of(objects, "Deployment", "flower").container("flower")["args"]
    return {
        **{
            container: env_of(pod_of(objects, "Deployment", name).container(container))[
                "VIRNUCPRO_METRICS"
            ]
            for name, container in (("keeper", "keeper"), ("esm2-650m", "worker"))
        },
        "flower": flower[flower.index("--address") + 1],
    }


def test_by_default_on_those_of_ipv4():
    assert addresses({}) == {
        **{"keeper": "0.0.0.0:9808", "worker": "0.0.0.0:9809"},
        "flower": "0.0.0.0:5555",
    }


def test_in_a_cluster_of_ipv6_on_those():
    assert addresses({"listenAddress": "::"}) == {
        **{"keeper": "[::]:9808", "worker": "[::]:9809"},
        "flower": "[::]:5555",
    }


@pytest.fixture
def with_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        if probe.connect_ex(("::1", 1)) == 101:  # ENETUNREACH
            unavailable("needs IPv6 on loopback")


@pytest.mark.usefixtures("with_ipv6")
@pytest.mark.parametrize(
    ("component", "path"), [("keeper", "/healthz"), ("flower", "/healthcheck")]
)
def test_it_answers_there(component, path, tmp_path: Path):
    host = addresses({"listenAddress": "::"})[component].rpartition(":")[0]
    port = free_port()
    environment = clean_environment(
        VIRNUCPRO_BROKER_URL="redis://127.0.0.1:1/0",  # none: it answers all the same
        VIRNUCPRO_STORE=f"file://{tmp_path}/store",
        VIRNUCPRO_FLOWER_LOGIN="operator:a-long-word",
    )
    option = {"keeper": "--metrics", "flower": "--address"}[component]
    words = [sys.executable, "-m", "producer.cli", component, option, f"{host}:{port}"]
    with (tmp_path / "log").open("wb") as output:
        process = start_dependent(words, env=environment, output=output)
    try:
        wait_until(lambda: answers(f"http://[::1]:{port}{path}"), START_SECONDS)
    finally:
        stop(process, 40)


def answers(url: str) -> bool:
    with suppress(URLError, OSError), urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False
