"""Flower as an operator sees it: a browser, a login, a worker, and a job with all outcomes.

FLOWER_PICTURE=docs/flower.png makes the picture of the documents anew.
"""

import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from common.job.manifest import read_manifest
from common.model_source import ModelSource
from common.store import open_store
from common.wire.celery_app import make_celery, publish
from common.wire.queues import batch_queue
from tests.support.browser import chromium, page_at, picture_of, rows_of
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.flower import LOGIN, Flower, running_flower
from tests.support.overflow import RARE, add_too_much_at_once
from tests.support.processes import Fleet, running_fleet, wait_until

pytestmark = pytest.mark.slow

#: The columns of the list of tasks.
COLUMNS = ("name", "state", "kwargs", "result", "received", "runtime", "worker")

#: Rows that overflow FP16, of which none is in the batch that fails.
UNSTABLE_ROWS = (0, 3, 90)

#: The batch whose input is damaged.
DAMAGED = 2


@pytest.fixture
def fleet(sockets, tmp_path) -> Iterator[Fleet]:
    with running_fleet(sockets, f"file://{tmp_path}/store") as running:
        yield running


def overflowing_model(folder: Path) -> Path:
    model = random_fair_esm(TINY)
    add_too_much_at_once(model)
    return save_fair_esm(model, folder / "tiny.pt")


def proteome(folder: Path) -> Path:
    """Return a FASTA of 120 proteins, some of which the model above overflows for."""
    draw = random.Random(7)
    lengths = [draw.randint(40, 300) for _ in range(120)]
    rows = ["".join(draw.choices("LAGVSERTIDPKQNFYMHWC", k=length)) for length in lengths]
    path = folder / "proteome.fasta"
    path.write_text(
        "".join(
            f">p{number}\n{row[:2] + RARE + row[3:] if number in UNSTABLE_ROWS else row}\n"
            for number, row in enumerate(rows)
        )
    )
    return path


def submit(fleet: Fleet, model: Path, fasta: Path) -> str:
    words = ("submit", fasta, "--model", model, "--precision=fp16", "--batch-tokens=4000")
    done = fleet.producer(*words)
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip())


def damage(fleet: Fleet, key: str) -> None:
    path = Path(fleet.store_url.removeprefix("file://"), key)
    path.write_bytes(path.read_bytes().replace(b"L", b"V", 1))


def with_login(flower: Flower) -> str:
    return flower.url.replace("://", f"://{LOGIN}@")


def test_an_operator_sees_workers_and_tells_done_unstable_and_failed_batches_apart(fleet, tmp_path):
    chromium()
    model = overflowing_model(tmp_path)
    job = submit(fleet, model, proteome(tmp_path))
    manifest = read_manifest(open_store(fleet.store_url), job)
    damage(fleet, manifest.input_key(DAMAGED))
    queue = batch_queue(manifest.batch(0))
    with running_flower(fleet.environment, tmp_path) as flower:
        assert not rows_of(page_at(f"{flower.url}/tasks", tmp_path))  # it asks for a login
        with fleet.workers(model, tmp_path, "--precision=fp16"):
            wait_until(lambda: fleet.ledger.jobs.progress(job).finished, 120)
            again = [manifest.batch(0)]  # as after a broken connection
            publish(make_celery(fleet.broker_url, []), ModelSource.parse(manifest.model), again)
            wait_until(lambda: "skipped" in str(flower.tasks()), 30)
            [worker] = filter(None, rows_of(page_at(with_login(flower), tmp_path)))
            assert worker[1] == "Online"
            assert queue in page_at(f"{with_login(flower)}/broker", tmp_path)
            tasks = rows_of(page_at(f"{with_login(flower)}/tasks", tmp_path))
            shown = [(row[0], row[1], row[3]) for row in tasks if len(row) == len(COLUMNS)]
            assert_told_apart(job, shown)
            if picture := os.environ.get("FLOWER_PICTURE"):
                file = Path(picture).absolute()
                picture_of(f"{with_login(flower)}/tasks", tmp_path, file, width=1600, height=1000)
        wait_until(lambda: "Offline" in page_at(with_login(flower), tmp_path), 60)


def assert_told_apart(job: str, shown: Sequence[tuple[str, str, str]]) -> None:
    """Check job, state and outcome of the tasks in the list."""
    assert {of_job for of_job, _, _ in shown} == {job}
    for state, outcome in (
        ("SUCCESS", r"done \d+ rows"),
        ("SUCCESS", r"done \d+ rows, [12] rows? on to selective_fp32"),
        ("FAILURE", r"failed: .* is damaged .*"),
        ("SUCCESS", r"skipped: it is done"),
    ):
        found = [text for _, of_state, text in shown if of_state == state]
        assert any(re.fullmatch(outcome, text) for text in found), (outcome, found)
