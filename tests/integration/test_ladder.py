"""The precision ladder with everything real: FP16 workers, Redis, a store, and rows that overflow.

An FP16 worker on a CPU is slow, but what overflows on a GPU overflows there too.
"""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from common.rungs import PRECISION_CODES, Rung
from tests.integration.conftest import TINY
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.overflow import (
    RARE,
    add_too_much_at_once,
    overflow_a_hidden_unit,
)
from tests.support.processes import wait_until
from tests.support.results import load, oracle_means

FP16 = PRECISION_CODES[Rung.FP16]
SELECTIVE_FP32 = PRECISION_CODES[Rung.SELECTIVE_FP32]
FP32 = PRECISION_CODES[Rung.FP32]

#: Rows that overflow: the first and the last, neighbours, and some alone in their batch.
BAD_ROWS = (0, 17, 18, 111, 250, 333, 499)

BATCHES = "--batch-tokens=1500"


@pytest.fixture(scope="module")
def proteins() -> list[str]:
    """500 sequences, seven of them with the letter that makes the models below overflow."""
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

    progress = fleet.ledger.progress(fleet.ledger.jobs()[0])
    assert progress.batches > 10
    assert progress.batches_done == progress.batches
    assert progress.count("rows_retried") == 7
    assert progress.count("rows_quarantined") == 0
    assert progress.count("embedded_at_fp16") == 493  # none of them twice
    assert progress.count("embedded_at_selective_fp32") == (repaired_by == SELECTIVE_FP32) * 7
    assert progress.count("embedded_at_fp32") == (repaired_by == FP32) * 7
    assert progress.count("tokens_done") == progress.tokens
    status = fleet.producer("status", progress.job).stdout
    assert "7 sequences at a higher rung" in status
    assert "selective_fp32" in status


def test_a_worker_killed_between_result_and_retry_loses_no_row(fleet, fasta, proteins, tmp_path):
    model, path = overflowing(add_too_much_at_once, tmp_path)
    job = fleet.producer("submit", fasta, "--model", path, BATCHES).stdout.strip()
    command = [sys.executable, "-m", "tests.support.dying_worker", str(path), "fp16"]
    with (tmp_path / "dying.log").open("wb") as log:
        died = subprocess.run(
            command, env=fleet.environment, stdout=log, stderr=log, timeout=120, check=False
        )
    assert died.returncode == -9, (tmp_path / "dying.log").read_text()
    before = fleet.ledger.progress(job)
    assert before.count("rows_retried") == 3  # those of the first batch
    assert before.count("embedded_at_selective_fp32") == 0
    assert fleet.ledger.queued(before.queues[Rung.SELECTIVE_FP32]) == 0  # nobody knows of it
    with fleet.workers(path, tmp_path, "--precision=fp16"):
        watched = fleet.producer("watch", job)
    assert watched.returncode == 0, watched.stderr
    fetched = fleet.producer("fetch", job, "-o", tmp_path / "e.h5")
    assert fetched.returncode == 0, fetched.stderr
    found = load(tmp_path / "e.h5")
    assert found["precision"].tolist() == expected_precision(SELECTIVE_FP32)
    assert_close_to_fair_esm(found, model, proteins)
    after = fleet.ledger.progress(job)
    assert after.count("rows_retried") == 7
    assert after.count("embedded_at_fp16") == 493
    assert after.rows_done == 500


@pytest.mark.parametrize(("precision", "rungs"), [("bf16", ["bf16", "fp32"]), ("fp32", ["fp32"])])
def test_what_no_rung_repairs_is_quarantined_named_and_left_as_nan(
    fleet, tmp_path, precision, rungs
):
    """BF16 reaches as far as FP32 does: neither can hold a sum of such numbers."""
    model = random_fair_esm(TINY)
    letter = model.embed_tokens.weight[28]
    letter.fill_(3e38)
    path = save_fair_esm(model, tmp_path / "hopeless.pt")
    fasta = tmp_path / "p.fasta"
    fasta.write_text(f">good\nMKTAYIAK\n>bad one\nMK{RARE}AY\n>fine\nGAVLIPF\n")
    submit = ("submit", fasta, "--model", path, f"--precision={precision}", "-o", tmp_path / "e.h5")
    with fleet.workers(path, tmp_path, f"--precision={precision}"):
        done = fleet.producer(*submit)
    assert done.returncode == 0, done.stderr
    assert "1 of them have no numbers" in done.stderr
    assert f"row 1 'bad' (5 letters): {precision}: " in done.stderr
    found = load(tmp_path / "e.h5")
    assert found["precision"].tolist() == [
        PRECISION_CODES[precision],
        0,
        PRECISION_CODES[precision],
    ]
    assert np.isnan(found["mean"][1]).all()
    assert np.isfinite(found["mean"][[0, 2]]).all()

    job = fleet.ledger.jobs()[0]
    [path] = (tmp_path / "store" / job / "quarantine").iterdir()
    [row] = json.loads(path.read_text())["rows"]
    assert (row["row"], row["id"], row["length"]) == (1, "bad", 5)
    assert list(row["seen"]) == rungs
    assert all(seen["nan"] + seen["inf"] for seen in row["seen"].values())
    assert "1 sequences without numbers" in fleet.producer("status", job).stdout
    assert "quarantined: row 1 'bad'" in fleet.producer("watch", job).stderr

    # A wiped Redis is told so by the store, and nothing is computed again.
    fleet.ledger.redis.flushall()
    again = fleet.producer(*submit)
    assert again.returncode == 0, again.stderr
    assert fleet.ledger.progress(job).count("rows_quarantined") == 1


def test_a_job_may_ask_to_stop_at_the_first_instability(fleet, fasta, tmp_path):
    _, path = overflowing(add_too_much_at_once, tmp_path)
    submit = ("submit", fasta, "--model", path, BATCHES, "-o", tmp_path / "e.h5")
    with fleet.workers(path, tmp_path, "--precision=fp16"):
        done = fleet.producer(*submit, "--on-instability=fail")
        assert done.returncode == 2
        assert "as --on-instability fail asks for" in done.stderr
        assert "row 0 'p0'" in done.stderr
        assert not (tmp_path / "e.h5").exists()
        [job] = fleet.ledger.jobs()
        queue = fleet.ledger.progress(job).queue
        wait_until(lambda: not fleet.ledger.queued(queue), 30)
        stopped = fleet.ledger.progress(job)
        assert stopped.state == "stopped"
        assert stopped.batches_done < stopped.batches
        kept = fleet.ledger.progress(job).count("embedded_at_fp16")
        assert kept > 0
        retried = fleet.producer(*submit)
    assert retried.returncode == 0, retried.stderr
    # The same job goes on: what was finite is not computed again.
    assert fleet.ledger.jobs() == [job]
    assert fleet.ledger.progress(job).count("embedded_at_fp16") == 493
    assert load(tmp_path / "e.h5")["precision"].tolist() == expected_precision(SELECTIVE_FP32)
