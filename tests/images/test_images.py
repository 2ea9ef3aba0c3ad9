"""The images: what is in them, and a whole job by them, without privileges."""

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import BUCKET
from tests.support.images import MARKER, ROOT, Builder, Container, Image, files_of
from tests.support.nextflow import task
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisServer, free_port
from tests.support.redis_users import redis_with_users, url_of
from tests.support.results import load

MODEL = "random:esm2_t6_8M_UR50D"

#: The most megabytes of each image.
LIMITS = {"virnucpro-producer": 250, "virnucpro-worker:cpu": 1500, "virnucpro-pipeline:cpu": 1500}


def megabytes(system: Path) -> float:
    """Return the sum of the sizes of an image's files, without the overhead of tar."""
    files = (path.lstat() for path in system.rglob("*") if path.is_symlink() or path.is_file())
    return sum({file.st_ino: file.st_size for file in files}.values()) / 1e6


def test_the_images_are_as_small_as_the_page_says(producer, worker, pipeline):
    page = (ROOT / "docs" / "deploy.md").read_text()
    images = producer, worker, pipeline
    for image, (name, limit) in zip(images, LIMITS.items(), strict=True):
        size = megabytes(image.system)
        said = re.search(rf"^\| `{name}` .* \| (\d+) MB \(\d+ MB\) \|$", page, re.MULTILINE)
        assert size < limit, name
        assert said is not None, name
        assert abs(size - int(said[1])) < 0.1 * size, f"{name}: {size:.0f} MB"


#: Names that no layer may have: files of a developer, of a test, and secrets.
FORBIDDEN = {
    *(".git", ".env", "pip.conf", ".netrc", ".aws", ".ssh", ".docker", "Dockerfile", "Makefile"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".cache", ".venv"),
    *("tests", "conftest.py", "requirements.txt"),
}

#: Folders of the build.
OF_THE_BUILD = {"build", "application", "work", "src"}


def test_no_layer_has_a_secret_a_test_a_cache_or_the_history(builder, producer_name, worker_name):
    for image in (producer_name, worker_name):
        layers = builder.layers(image)
        for layer in layers:
            names = [Path(name) for name in files_of(layer)]
            assert [n for n in names if n.name in FORBIDDEN] == []
            assert [n for n in names if n.parts[:1] and n.parts[0] in OF_THE_BUILD] == []
            lists = [n for n in names if n.parts[:4] == ("var", "lib", "apt", "lists")]
            assert [n for n in lists if n.name.endswith(("Packages", "Release"))] == []
            assert MARKER.encode() not in layer.read_bytes()
        assert MARKER not in str(builder.config(image))


def test_the_application_is_a_small_layer_above_what_it_needs(builder, producer_name):
    *below, last = builder.layers(producer_name)
    modules = [name for name in files_of(last) if name.endswith(".py")]
    own = re.compile(r".*/site-packages/(common|producer|virnucpro_fleet|workers)/.*")
    assert "keeper.py" in {Path(name).name for name in modules}
    assert [name for name in modules if not own.fullmatch(name)] == []
    assert 20 * last.stat().st_size < sum(layer.stat().st_size for layer in below)
    site = "site-packages/producer/"
    assert not [name for layer in below for name in files_of(layer) if site in name]


def test_the_producer_has_no_pytorch_and_the_worker_no_flower(producer, worker):
    def packages(image: Image) -> set[str]:
        [folder] = image.system.glob("opt/virnucpro/lib/python3*/site-packages")
        return {path.name for path in folder.iterdir()}

    assert "torch" not in packages(producer)
    assert "flower" in packages(producer)
    assert "torch" in packages(worker)
    assert "flower" not in packages(worker)
    assert not {"pytest", "pip"} & (packages(worker) | packages(producer))


def test_labels_say_what_an_image_is(producer, worker):
    for image, title in ((producer, "virnucpro-producer"), (worker, "virnucpro-worker")):
        labels = image.config["config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == title
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert labels["org.opencontainers.image.version"] == "0.1.0"
        assert image.config["config"]["User"] == "10001:10001"


# --- a job ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A Redis with users, a bucket, and folders that stand for ``/tmp``."""

    server: RedisServer
    environment: dict[str, str]
    folder: Path

    def tmp(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        path.chmod(0o1777)
        return path

    def of(self, user: str, **more: str) -> dict[str, str]:
        return self.environment | {"VIRNUCPRO_BROKER_URL": url_of(user, self.server.port)} | more


@pytest.fixture
def place(s3, tmp_path) -> Iterator[Place]:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    environment = {
        **s3.environment(),
        "VIRNUCPRO_STORE": f"s3://{BUCKET}/{secrets.token_hex(4)}",
        "VIRNUCPRO_MESSAGE_KEY": secrets.token_hex(16),
        "NO_PROXY": "127.0.0.1",
    }
    (tmp_path / "redis").mkdir()
    with redis_with_users(tmp_path / "redis") as server:
        yield Place(server, environment, tmp_path)


def test_a_job_runs_in_the_images_and_sigterm_ends_them(producer, worker, place, tmp_path):
    port, own = free_port(), place.tmp("producer")
    shutil.copy(ROOT / "examples" / "proteins.fasta", own)
    of_keeper = place.of("keeper", VIRNUCPRO_METRICS=f"127.0.0.1:{port}")
    of_worker = place.of("worker")
    keeper_tmp, worker_tmp = place.tmp("keeper"), place.tmp("worker")
    with (
        producer.running(
            "keeper", tmp=keeper_tmp, environment=of_keeper, log=tmp_path / "keeper.log"
        ) as keeper,
        worker.running(
            *("start", "--model", MODEL, "--gpus", "none"),
            **{"tmp": worker_tmp, "environment": of_worker, "log": tmp_path / "worker.log"},
        ) as computing,
    ):
        submitted = producer.run(
            *("submit", "/tmp/proteins.fasta", "--model", MODEL, "-o", "/tmp/e.h5"),
            tmp=own,
            environment=place.of("producer"),
        )
        logs = keeper.log.read_text() + computing.log.read_text()
        assert submitted.returncode == 0, submitted.stderr + logs
        wait_until(lambda: is_healthy(producer, keeper, keeper_tmp, of_keeper, port), 60)
        wait_until(lambda: is_healthy(worker, computing, worker_tmp, of_worker), 60)
        assert [(one.stop(), one.log.read_text()[-500:])[0] for one in (keeper, computing)] == [
            0,
            0,
        ]
    assert len(load(own / "e.h5")["rows"]) == 25
    with place.server.client as client:
        assert client.execute_command("ACL", "LOG") == []
    for log in (keeper.log, computing.log):
        assert "Traceback" not in log.read_text(), log.read_text()


def is_healthy(image: Image, container: Container, *place: Any) -> bool:
    """Run the health check of a container, which must not have ended."""
    assert container.process.poll() is None, container.log.read_text()
    return image.is_healthy(*place)


def test_an_image_without_its_process_is_not_healthy(producer, worker, place):
    assert not producer.is_healthy(place.tmp("keeper"), {}, free_port())
    assert not worker.is_healthy(place.tmp("worker"), {})


def test_flower_runs_in_the_producer_s_image(producer, place, tmp_path):
    port = free_port()
    environment = place.of("flower", VIRNUCPRO_FLOWER_LOGIN="admin:letters-and-digits")
    with producer.running(
        *("flower", "--address", f"127.0.0.1:{port}"),
        **{"tmp": place.tmp("flower"), "environment": environment, "log": tmp_path / "flower.log"},
    ) as flower:
        asked = f"curl -sf -o /dev/null http://127.0.0.1:{port}/healthcheck"
        wait_until(lambda: subprocess.run(asked, shell=True, check=False).returncode == 0, 60)
        assert flower.stop() == 0, flower.log.read_text()


def test_an_engine_of_pipelines_embeds_a_file_in_its_image_as_any_user(pipeline, tmp_path):
    """The script of the Nextflow process, by the shell that Nextflow starts, in a folder of its."""
    config = {**pipeline.config["config"], "User": "12345:12345"}
    values = {"params.gpus": "none", "model": MODEL}
    script = task(tmp_path / "work" / ("e" * 100), "EMBED", values, {})
    shutil.copy(ROOT / "examples" / "proteins.fasta", script.parent / "input.fasta")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    script.parent.chmod(0o777)
    (tmp_path / "tmp").mkdir(mode=0o777)
    (tmp_path / "tmp").chmod(0o777)
    done = Image(pipeline.system, {"config": config}).run(
        *("/bin/bash", "-c", f"cd {script.parent} && /bin/bash -ue {script} && ps -e -o comm"),
        **{"tmp": tmp_path / "tmp", "shared": tmp_path / "work", "environment": {}},
    )
    assert done.returncode == 0, done.stderr
    assert "tini" in done.stdout.split()
    assert len(load(script.parent / "embeddings.h5")["rows"]) == 25


def test_what_triton_needs_is_in_the_worker_s_gpu_base(builder: Builder, tmp_path: Path):
    """PyTorch with CUDA is too large to be built here; the stage below it is not."""
    name = builder.build("worker-gpu")
    with builder.system(name) as system:
        image = Image(system, builder.config(name))
        source = "#include <Python.h>\nint main(void) { return PY_VERSION_HEX == 0; }\n"
        script = f"printf '{source}' > /tmp/a.c && gcc /tmp/a.c -o /tmp/a " + (
            '$(python3 -c \'import sysconfig as s; print("-I" + s.get_path("include"))\') && /tmp/a'
        )
        with_user = {**image.config["config"], "User": "10001:10001", "WorkingDir": "/tmp"}
        plain = Image(system, {"config": with_user})
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o777)
        done = plain.run("sh", "-c", script, tmp=tmp_path, environment={}, entrypoint=())
    assert done.returncode == 0, done.stderr
