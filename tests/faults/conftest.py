"""A fleet of which a test can break every part, and the expected result."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checks import Reference
from tests.support.fixtures import BUCKET
from tests.support.processes import Fleet, fleet_at, run_producer
from tests.support.redis_servers import RedisServer, running_redis
from tests.support.results import load
from tests.support.s3_proxy import S3Proxy, s3_proxy
from tests.support.swift import S3Server
from tests.support.tcp_proxy import TcpProxy, tcp_proxy


@pytest.fixture(scope="session")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 sequences in at least 200 batches: some seconds of work for one worker."""
    draw = random.Random(5)
    records = (
        f">p{row}\n{''.join(draw.choices('LAGVSERTIDPKQNFYMHWC', k=draw.randint(20, 900)))}\n"
        for row in range(800)
    )
    path = tmp_path_factory.mktemp("input") / "proteins.fasta"
    path.write_text("".join(records))
    return path


@pytest.fixture(scope="session")
def reference(tiny: Path, proteins: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The result of the job without faults."""
    folder = tmp_path_factory.mktemp("reference")
    done = run_producer(
        *("submit", proteins, "--local", "--model", tiny, "-o", folder / "e.h5"), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return load(folder / "e.h5")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def network(redis: RedisServer) -> Iterator[TcpProxy]:
    """The network between workers and Redis."""
    with tcp_proxy(redis.port) as proxy:
        yield proxy


@pytest.fixture
def fleet(redis: RedisServer, tmp_path: Path) -> Fleet:
    """A broker and a folder as the store; no worker yet."""
    return fleet_at(redis.url, f"file://{tmp_path}/store")


@pytest.fixture
def far_fleet(network: TcpProxy, tmp_path: Path) -> Fleet:
    """A fleet with a network between its processes and Redis; no worker yet."""
    return fleet_at(f"redis://127.0.0.1:{network.port}/0", f"file://{tmp_path}/store")


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[S3Proxy]:
    """A real S3 server behind a proxy that fails on command."""
    with s3_proxy(s3) as proxy:
        yield proxy


@pytest.fixture
def s3_fleet(redis: RedisServer, s3: S3Server, bucket: S3Proxy, tmp_path: Path) -> Fleet:
    """A broker and a bucket of that server as the store; no worker yet."""
    variables = {**s3.environment(), "AWS_ENDPOINT_URL_S3": bucket.endpoint_url}
    return fleet_at(redis.url, f"s3://{BUCKET}/{tmp_path.name}", **variables)
