"""Fixtures of several kinds of tests: S3, and a small model in fair-esm's format."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import esm
import pytest

from common.model_specs import ModelSpec
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.swift import S3Server, swift_server

TINY = ModelSpec(name="tiny", layers=2, dim=64, heads=4)

BUCKET = "embeddings"


@pytest.fixture(scope="session")
def oracle() -> esm.ESM2:
    return random_fair_esm(TINY)


@pytest.fixture(scope="session")
def tiny(oracle: esm.ESM2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is fast on a CPU."""
    return save_fair_esm(oracle, tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name: a socket's path may have 100 characters."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        yield Path(folder)
