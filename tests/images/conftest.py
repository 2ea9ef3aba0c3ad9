"""The images, built once for all tests, and kept in ``IMAGES_FOLDER`` if that is set."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import BASE, Builder, Image, missing_tools


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of this folder out of ``make test``: a build takes minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    if missing := missing_tools():
        pytest.skip(f"images are not built: {', '.join(missing)} missing")
    if kept := os.environ.get("IMAGES_FOLDER"):
        Path(kept).mkdir(exist_ok=True)
        yield with_base(Path(kept))
        return
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        building = with_base(Path(folder))
        try:
            yield building
        finally:
            building.remove()


def with_base(folder: Path) -> Builder:
    folder.chmod(0o755)  # the images run as another user
    building = Builder(folder)
    if BASE not in building.run("images", "--format", "{{.Name}}").split():
        building.make_base()
    return building


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


@pytest.fixture(scope="session")
def pipeline(builder: Builder, worker_name: str) -> Iterator[Image]:
    name = builder.build("pipeline", VARIANT="cpu")
    with builder.system(name) as system:
        yield Image(system, builder.config(name))
