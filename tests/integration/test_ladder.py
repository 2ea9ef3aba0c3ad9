"""The precision ladder with real parts: FP16 workers, Redis, a store, and rows that overflow.

An FP16 worker on a CPU is slow, but what overflows on a GPU overflows there too.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from common.ledger.progress import Progress
from common.rungs import PRECISION_CODES, Rung
from common.wire.queues import KEY_PREFIX, Queues
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.overflow import (
    RARE,
    add_too_much_at_once,
    overflow_a_hidden_unit,
)
from tests.support.processes import run_producer, start_command
from tests.support.results import load, oracle_means

FP16 = PRECISION_CODES[Rung.FP16]
SELECTIVE_FP32 = PRECISION_CODES[Rung.SELECTIVE_FP32]
FP32 = PRECISION_CODES[Rung.FP32]

#: Rows that overflow: the first and the last, neighbours, and some alone in their batch.
BAD_ROWS = (0, 17, 18, 111, 250, 333, 499)

BATCHES = "--batch-tokens=1500"


@pytest.fixture(scope="module")
def proteins() -> list[str]:
    """500 sequences, seven of them with the letter for which the models below overflow."""
    draw = random.Random(3)
    found = [
        "".join(draw.choices("LAGVSERTIDPKQNFYMHWC", k=draw.randint(5, 60))) for _ in range(500)
    ]
    return [p[:2] + RARE + p[3:] if row in BAD_ROWS else p for row, p in enumerate(found)]


@pytest.fixture(scope="module")
def fasta(proteins, tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "proteins.fasta"
    path.write_text("".join(f">p{row}\n{protein}\n" for row, protein in enumerate(proteins)))
    return path


def overflowing(overflow, folder):
    """fair-esm's model whose weights overflow, and the checkpoint with them."""
    model = random_fair_esm(TINY)
    overflow(model)
    return model, save_fair_esm(model, folder / f"{overflow.__name__}.pt")


def expected_precision(of_bad: int) -> list[int]:
    return [of_bad if row in BAD_ROWS else FP16 for row in range(500)]


#: Pattern of a worker's log line about a batch that it has embedded.
EMBEDDED = re.compile(
    r"Batch \d+ of \S+: (\d+) sequences in (\w+), .* in \S+ s(?:, (\d+) not finite)?"
)


def embedded(logs: Iterable[Path]) -> tuple[dict[str, int], dict[str, int]]:
    """Count the sequences that workers computed in each precision: finite ones, and others."""
    finite: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for number, precision, unstable in EMBEDDED.findall("".join(log.read_text() for log in logs)):
        finite[precision] += int(number)
        others[precision] += int(unstable or 0)
    return dict(finite), dict(others)


def assert_that_none_was_computed_twice(
    progress: Progress, logs: Iterable[Path], repaired_by: int
) -> None:
    """Check that all 500 ran once in FP16, and the seven once at each rung that was needed."""
    if repaired_by == FP32:
        expected = {"fp16": 493, "selective_fp32": 0, "fp32": 7}
        not_finite = {"fp16": 7, "selective_fp32": 7, "fp32": 0}
    else:
        expected = {"fp16": 493, "selective_fp32": 7}
        not_finite = {"fp16": 7, "selective_fp32": 0}
    assert embedded(logs) == (expected, not_finite)
    for rung in progress.queues:
        assert progress.embedded_at(rung) == expected.get(rung, 0)
        assert progress.unstable_at(rung) == not_finite.get(rung, 0)
    assert progress.batches_done == progress.batches
    assert progress.tokens_done == progress.tokens
    assert progress.rows_retried == 7
    assert progress.rows_quarantined == 0


def assert_close_to_fair_esm(found: dict, model, proteins: list[str]) -> None:
    expected = oracle_means(model, proteins, TINY.layers)
    norms = np.linalg.norm(found["mean"], axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found["mean"] * expected).sum(1) / norms).min() > 0.999


@pytest.mark.parametrize(
    ("overflow", "repaired_by"),
    [(add_too_much_at_once, SELECTIVE_FP32), (overflow_a_hidden_unit, FP32)],
)
def test_only_the_rows_that_overflowed_are_computed_again_until_they_are_finite(
    s3_fleet, fasta, proteins, tmp_path, overflow, repaired_by
):
    fleet = s3_fleet
    model, path = overflowing(overflow, tmp_path)
    with fleet.workers(path, tmp_path, "--precision=fp16", count=2) as logs:
        done = fleet.producer("submit", fasta, "--model", path, BATCHES, "-o", tmp_path / "e.h5")
        assert "VIRNUCPRO_DISABLE_FP16=1" in "".join(log.read_text() for log in logs)
    assert done.returncode == 0, done.stderr
    found = load(tmp_path / "e.h5")
    assert found["rows"].tolist() == list(range(500))
    assert found["precision"].tolist() == expected_precision(repaired_by)
    assert_close_to_fair_esm(found, model, proteins)

    progress = fleet.ledger.jobs.progress(fleet.ledger.jobs.names()[0])
    assert progress.batches > 10
    assert_that_none_was_computed_twice(progress, logs, repaired_by)
    status = fleet.producer("status", progress.job).stdout
    assert "7 sequences at a higher rung" in status
    assert "selective_fp32" in status


def test_a_worker_killed_between_result_and_retry_loses_no_row(fleet, fasta, proteins, tmp_path):
    model, path = overflowing(add_too_much_at_once, tmp_path)
    job = fleet.producer("submit", fasta, "--model", path, BATCHES).stdout.strip()
    command = ("tests.support.dying_worker", path, "fp16")
    with (tmp_path / "dying.log").open("wb") as log:
        died = start_command(*command, environment=fleet.environment, output=log)
        died.wait(120)
    assert died.returncode == -9, (tmp_path / "dying.log").read_text()
    before = fleet.ledger.jobs.progress(job)
    assert before.rows_retried == 3  # those of the first batch
    assert before.embedded_at(Rung.SELECTIVE_FP32) == 0
    assert (
        Queues(fleet.ledger.redis).length(before.queues[Rung.SELECTIVE_FP32]) == 0
    )  # nobody knows of it
    with fleet.workers(path, tmp_path, "--precision=fp16") as logs:
        watched = fleet.producer("watch", job)
    assert watched.returncode == 0, watched.stderr
    fetched = fleet.producer("fetch", job, "-o", tmp_path / "e.h5")
    assert fetched.returncode == 0, fetched.stderr
    found = load(tmp_path / "e.h5")
    assert found["precision"].tolist() == expected_precision(SELECTIVE_FP32)
    assert_close_to_fair_esm(found, model, proteins)
    after = fleet.ledger.jobs.progress(job)
    assert_that_none_was_computed_twice(after, [tmp_path / "dying.log", *logs], SELECTIVE_FP32)


@pytest.mark.parametrize(("precision", "rungs"), [("bf16", ["bf16", "fp32"]), ("fp32", ["fp32"])])
def test_what_no_rung_repairs_is_quarantined_named_and_left_as_nan(
    fleet, tmp_path, precision, rungs
):
    """BF16 has the range of FP32: neither can represent such a hidden unit."""
    model = random_fair_esm(TINY)
    overflow_a_hidden_unit(model, 5e37)
    model.layers[0].fc2.weight[:, 0] = 1e-37
    path = save_fair_esm(model, tmp_path / "hopeless.pt")
    fasta = tmp_path / "p.fasta"
    fasta.write_text(f">good\nMKTAYIAK\n>bad one\nMK{RARE}AY\n>fine\nGAVLIPF\n")
    submit = ("submit", fasta, "--model", path, f"--precision={precision}", "-o", tmp_path / "e.h5")
    with fleet.workers(path, tmp_path, f"--precision={precision}"):
        done = fleet.producer(*submit)
    assert done.returncode == 0, done.stderr
    assert "Without an embedding (NaN, precision 'none'): 1 row whose" in done.stderr
    assert f"row 1 'bad' (5 letters): {precision}: " in done.stderr
    found = load(tmp_path / "e.h5")
    assert found["precision"].tolist() == [
        PRECISION_CODES[precision],
        0,
        PRECISION_CODES[precision],
    ]
    assert np.isnan(found["mean"][1]).all()
    assert np.isfinite(found["mean"][[0, 2]]).all()

    job = fleet.ledger.jobs.names()[0]
    [path] = (tmp_path / "store" / job / "quarantine").iterdir()
    [row] = json.loads(path.read_text())["rows"]
    assert (row["row"], row["id"], row["length"]) == (1, "bad", 5)
    assert list(row["seen"]) == rungs
    assert all(seen["nan"] + seen["inf"] for seen in row["seen"].values())
    assert "1 sequence without an embedding" in fleet.producer("status", job).stdout
    assert "quarantined: row 1 'bad'" in fleet.producer("watch", job).stderr

    # A wiped Redis is told so by the store, and nothing is computed again.
    fleet.ledger.redis.flushall()
    again = fleet.producer(*submit)
    assert again.returncode == 0, again.stderr
    assert fleet.ledger.jobs.progress(job).rows_quarantined == 1


def test_a_job_may_stop_at_the_first_instability_and_then_goes_on_where_it_stopped(
    fleet, fasta, proteins, tmp_path
):
    """Also while messages of before the stop are still queued, and through two more rungs."""
    model, path = overflowing(overflow_a_hidden_unit, tmp_path)
    submit = ("submit", fasta, "--model", path, BATCHES)
    to_file = (*submit, "-o", tmp_path / "e.h5")
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    job = fleet.producer(*submit, "--on-instability=fail").stdout.strip()
    batches, queue = fleet.ledger.jobs.progress(job).batches, fleet.ledger.jobs.progress(job).queue
    # They reach no worker before the job has stopped.
    fleet.ledger.redis.rename(f"{KEY_PREFIX}{queue}", "aside")

    with fleet.workers(path, first, "--precision=fp16") as logs:
        done = fleet.producer(*to_file, "--on-instability=fail")
    assert done.returncode == 2
    assert "as on_instability fail asks for" in done.stderr
    assert "not finite: row 0 'p0'" in done.stderr
    assert not (tmp_path / "e.h5").exists()
    stopped = fleet.ledger.jobs.progress(job)
    assert stopped.state == "stopped"
    assert stopped.leased == 0
    assert embedded(logs)[0] == {"fp16": stopped.embedded_at(Rung.FP16)}
    assert 0 < stopped.embedded_at(Rung.FP16) < 493
    assert stopped.unstable_at(Rung.FP16) > 0

    fleet.ledger.redis.rename("aside", f"{KEY_PREFIX}{queue}")
    again = fleet.producer(*submit)
    assert again.returncode == 0, again.stderr
    begun = stopped.batches_at(Rung.FP16)
    assert Queues(fleet.ledger.redis).length(queue) == batches + (batches - begun)
    waiting = [Queues(fleet.ledger.redis).length(name) for name in stopped.queues.values()]
    assert waiting[1:] == [len(fleet.ledger.results.all(job)), 0]
    with fleet.workers(path, second, "--precision=fp16") as more_logs:
        retried = fleet.producer(*to_file)
    assert retried.returncode == 0, retried.stderr
    assert fleet.ledger.jobs.names() == [job]
    after = fleet.ledger.jobs.progress(job)
    assert_that_none_was_computed_twice(after, [*logs, *more_logs], FP32)
    found = load(tmp_path / "e.h5")
    assert found["precision"].tolist() == expected_precision(FP32)
    assert_close_to_fair_esm(found, model, proteins)


def test_a_job_that_begins_in_fp32_is_left_to_workers_with_weights_in_fp32(
    fleet, tiny, oracle, fasta, proteins, tmp_path
):
    """Half precision is disabled only for the producer, which suffices for FP32."""
    half, full = (tmp_path / name for name in ("half", "full"))
    half.mkdir()
    full.mkdir()
    submit = ("submit", fasta, "--model", tiny, BATCHES)
    disabled = {**fleet.environment, "VIRNUCPRO_DISABLE_FP16": "1"}
    with fleet.workers(tiny, half, "--precision=fp16") as half_logs:
        queued = run_producer(*submit, environment=disabled)
        assert queued.returncode == 0, queued.stderr
        job = queued.stdout.strip()
        waiting = fleet.ledger.jobs.progress(job)
        assert f"no worker serves {waiting.queue} yet" in queued.stderr
        assert f"worker start --model {tiny} --precision fp32\n" in queued.stderr
        # Meanwhile, the worker does all of a job in half precision.
        other = fleet.producer(*submit, "-o", tmp_path / "fp16.h5")
        assert other.returncode == 0, other.stderr
        waiting = fleet.ledger.jobs.progress(job)
        assert Queues(fleet.ledger.redis).length(waiting.queue) == waiting.batches
        assert (waiting.leased, waiting.rows_done, waiting.weights) == (0, 0, None)
        with fleet.workers(tiny, full, "--precision=fp32") as full_logs:
            done = run_producer(*submit, "-o", tmp_path / "fp32.h5", environment=disabled)
    assert done.returncode == 0, done.stderr
    assert job in full_logs[0].read_text()
    assert job not in half_logs[0].read_text()
    assert embedded(half_logs)[0] == {"fp16": 500}
    assert embedded(full_logs)[0] == {"fp32": 500}
    found, in_half = load(tmp_path / "fp32.h5"), load(tmp_path / "fp16.h5")
    assert set(found["precision"]) == {FP32}
    assert set(in_half["precision"]) == {FP16}
    expected = oracle_means(oracle, proteins, TINY.layers)
    assert np.abs(found["mean"] - expected).max() <= 2e-5
    # Numbers in half precision cannot be as close: it shows in them which it was.
    assert np.abs(in_half["mean"] - expected).max() > 2e-5
