"""Fixtures: a real Redis, and hypothesis without deadlines."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis import Redis

from common import advice
from common.ledger.ledger import Ledger
from common.local.embedded_redis import redis_server
from common.wire.celery_app import make_celery
from common.wire.redis_client import connect
from tests.support.staged import Job
from tests.support.stores import folder_store

hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have messages name methods, though a command ran in this process before."""
    monkeypatch.setattr(advice, "_command_line", None)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    # A socket's path may have 100 characters; pytest's folders have more.
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        socket = Path(folder, "redis.sock")
        with redis_server(socket):
            yield f"unix://{socket}?db=0"


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with connect(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def job_of(ledger: Ledger, redis_url: str, tmp_path: Path) -> Callable[..., Job]:
    store, app = folder_store(tmp_path / "store"), make_celery(redis_url, [])
    return lambda **options: Job(store, ledger, app, **options)


@pytest.fixture
def job(job_of: Callable[..., Job]) -> Job:
    """A small job that is staged, but not yet open."""
    return job_of()
