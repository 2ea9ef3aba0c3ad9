"""``worker validate --published`` as a user runs it, on the CPU: its lines, JSON and exit code."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common.model_specs import MODELS
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.processes import clean_environment, run

NAME = "esm2_t6_8M_UR50D"

Validate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a published model's shape that are not the published ones."""
    model = random_fair_esm(MODELS[NAME])
    return save_fair_esm(model, tmp_path_factory.mktemp("other") / f"{NAME}.pt")


@pytest.fixture
def validate(tmp_path) -> Validate:
    def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return run(
            *("workers.cli", "validate", "--published", *arguments),
            environment=clean_environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
            cwd=tmp_path,
        )

    return command


def test_other_weights_fail_in_one_line_and_both_hashes_are_shown(validate, other, tmp_path):
    done = validate("--model", NAME, "--weights", other)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Model      {NAME} from {other}, fingerprint ")
    assert lines[-1].startswith(f"FAIL: these are other weights than the published ones of {NAME}")
    assert f"sha256sum {other} gives" in done.stdout
    assert "46f002a9870c9bdecd0ea887acb1f9a38a6b561e8f8bf8a6990b679b9d31b928" in done.stdout
    assert "Embedding 3 proteins" in done.stderr
    assert not list(tmp_path.rglob("validations"))


def test_json_is_one_document(validate, other):
    done = validate("--model", other, "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert (document["published"], document["passed"]) == (NAME, False)
    assert document["other_files"] == [str(other)] == list(document["sha256"])
    assert [each["precision"] for each in document["comparisons"]] == ["fp32", "bf16"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--picture", "c.png"], "--picture is for random sequences"),
        (["--sequences-per-set", 4], "--sequences-per-set is for random sequences"),
        (["--store", "/tmp"], "--store is for random sequences"),
        (["--model", f"random:{NAME}"], "random weights, for which no numbers are published"),
        (["--model", "esm2_t48_15B_UR50D"], "no numbers of the authors' code are published"),
        (["--device", "cuda"], "PyTorch finds no GPU here"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_is_refused_before_any_work(validate, other, options, message):
    done = validate(*([] if "--model" in options else ["--model", other]), *options)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Embedding" not in done.stderr
    assert "Traceback" not in done.stderr
