"""The images, built once for all tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import Builder, Image, missing_tools


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of this folder out of ``make test``: a build takes minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    if missing := missing_tools():
        pytest.skip(f"images are not built: {', '.join(missing)} missing")
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        Path(folder).chmod(0o755)
        building = Builder(Path(folder))
        building.make_base()
        try:
            yield building
        finally:
            building.remove()


@pytest.fixture(scope="session")
def producer_name(builder: Builder) -> str:
    return builder.build("producer")


@pytest.fixture(scope="session")
def worker_name(builder: Builder) -> str:
    return builder.build("worker", VARIANT="cpu")


@pytest.fixture(scope="session")
def producer(builder: Builder, producer_name: str) -> Iterator[Image]:
    with builder.system(producer_name) as system:
        yield Image(system, builder.config(producer_name))


@pytest.fixture(scope="session")
def worker(builder: Builder, worker_name: str) -> Iterator[Image]:
    with builder.system(worker_name) as system:
        yield Image(system, builder.config(worker_name))
