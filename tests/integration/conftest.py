"""Fleets: Redis, a store, and workers as processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures import BUCKET
from tests.support.processes import Fleet, running_fleet
from tests.support.swift import S3Server


@pytest.fixture
def fleet(sockets: Path, tmp_path: Path) -> Iterator[Fleet]:
    """A broker and a folder as the store; no worker yet."""
    with running_fleet(sockets, f"file://{tmp_path}/store") as running:
        yield running


@pytest.fixture
def s3_fleet(sockets: Path, s3: S3Server, tmp_path: Path) -> Iterator[Fleet]:
    """A broker and a bucket as the store; no worker yet."""
    store = f"s3://{BUCKET}/{tmp_path.name}"
    with running_fleet(sockets, store, **s3.environment()) as running:
        yield running
