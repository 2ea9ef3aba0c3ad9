"""``worker validate`` as a user runs it, on the CPU: tables, JSON, picture, record, exit code, and
what workers make of the record.
"""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.model_specs import MODELS
from common.rungs import Rung
from common.store import FileStore
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.processes import Fleet, clean_environment, run, run_producer
from tests.support.stores import folder_store
from workers.validation.record import refusal

Validate = Callable[..., "subprocess.CompletedProcess[str]"]

SETS = ["short", "medium", "long", "very_long", "mixed"]


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def validate(cache, tmp_path) -> Validate:
    """Run the command with few sequences, its cache in the test's folder."""

    def command(
        *arguments: object, count: int = 4, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        return run(
            *("workers.cli", "validate", "--sequences-per-set", count, *arguments),
            environment=clean_environment(XDG_CACHE_HOME=str(cache), **variables),
            cwd=tmp_path,
        )

    return command


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose residual stream is beyond FP16's range, but not FP32's."""
    model = random_fair_esm(TINY)
    model.layers[0].fc2.weight.mul_(1e5)
    return save_fair_esm(model, tmp_path_factory.mktemp("overflow") / "large.pt")


def records(folder: Path) -> list[Path]:
    return sorted(folder.rglob("validations/*.json"))


# --- a model that may be served -----------------------------------------------------------------


def test_a_sound_model_passes_and_the_tables_fit_a_page(validate, tiny):
    done = validate("--model", tiny)
    assert done.returncode == 0, done.stderr
    for part in (
        *SETS,
        "bf16 packed against fp32 padded",
        "bf16 padded against fp32 padded",
        "bf16 packed against bf16 padded",
        "fp32 packed against fp32 padded",
        "PASS: these weights may be served in bf16 on CPU",
    ):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "Random weights" not in done.stdout
    assert "centred" in done.stdout
    assert "Embedding very_long, bf16 packed" in done.stderr
    assert "Warning" not in done.stderr


def test_json_is_one_document_with_everything_and_so_is_the_record(validate, tiny, cache, tmp_path):
    folder_store(tmp_path / "store")
    done = validate("--model", tiny, "--json", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["model"], document["precision"]) == (str(tiny), "bf16")
    assert document["passed"] is True
    assert (document["nan"], document["inf"]) == (0, 0)
    assert document["cosine_min"] > 0.999
    assert {"torch", "python", "virnucpro-fleet"} <= set(document["versions"])
    assert [each["name"] for each in document["sets"]] == SETS
    assert [min(each["lengths"]) for each in document["sets"]] == [1, 50, 201, 501, 1]
    assert len(document["comparisons"]) == 4 * len(SETS)
    assert all(each["figures"]["centred_cosine_min"] > 0.9 for each in document["comparisons"])
    name = f"virnucpro-fleet/validations/{document['fingerprint']}.bf16.cpu.json"
    in_store = tmp_path / "store" / name.partition("/")[2]
    assert (records(cache), records(tmp_path / "store")) == ([cache / name], [in_store])
    assert json.loads(in_store.read_text()) == json.loads((cache / name).read_text()) == document


def test_in_fp32_packing_changes_nothing_that_counts(validate, tiny):
    document = json.loads(validate("--model", tiny, "--json").stdout)
    for each in document["comparisons"]:
        if each["measured"].startswith("fp32"):
            assert each["figures"]["cosine_min"] > 1 - 1e-9, each["set"]


def test_the_picture_is_a_png(validate, tiny, tmp_path):
    done = validate("--model", tiny, "--picture", "cosine.png")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "cosine.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000


def test_the_store_of_the_environment_gets_a_record(validate, tiny, tmp_path):
    folder_store(tmp_path / "store")
    validate("--model", tiny, VIRNUCPRO_STORE=str(tmp_path / "store"))
    assert len(records(tmp_path / "store")) == 1


def test_a_store_that_cannot_be_written_does_not_change_the_verdict(validate, tiny, tmp_path):
    (tmp_path / "file").touch()
    done = validate("--model", tiny, "--store", tmp_path / "file")
    assert done.returncode == 0
    assert "PASS" in done.stdout
    assert "This validation is not recorded in file://" in done.stderr


def test_weights_of_a_known_model_can_be_given_apart_from_its_name(validate, tmp_path):
    name = "esm2_t6_8M_UR50D"
    save_fair_esm(random_fair_esm(MODELS[name]), tmp_path / "weights")
    done = validate("--model", name, "--weights", "weights", "--json", count=2)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["model"], document["weights"]) == (name, str(tmp_path / "weights"))


def test_random_weights_are_said_to_prove_only_arithmetic(validate):
    done = validate("--model", "random:esm2_t6_8M_UR50D", count=2)
    assert done.returncode == 0, done.stderr
    assert "Random weights: this validates the arithmetic on this machine" in done.stdout


# --- a model that must not be -------------------------------------------------------------------


def test_a_model_that_overflows_fails_and_workers_are_told(validate, overflowing, cache, tmp_path):
    done = validate(
        *("--model", overflowing, "--precision", "fp16", "--json", "--picture", "c.png")
    )
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] is False
    assert document["nan"] == 2 * 20 * TINY.dim  # packed and padded
    failed = {each["measured"] for each in document["comparisons"] if "nan" in each["failures"]}
    assert failed == {"fp16 packed", "fp16 padded"}
    assert (tmp_path / "c.png").is_file()
    stores = [FileStore(cache / "virnucpro-fleet")]
    assert "no finite embedding" in str(refusal(document["fingerprint"], Rung.FP16, "CPU", stores))
    assert refusal(document["fingerprint"], Rung.BF16, "CPU", stores) is None


def test_what_overflows_in_fp16_does_not_in_bf16(validate, overflowing):
    done = validate("--model", overflowing, "--json")
    document = json.loads(done.stdout)
    assert (document["precision"], document["nan"], document["inf"]) == ("bf16", 0, 0)


def test_a_failure_is_marked_in_the_tables(validate, overflowing):
    done = validate("--model", overflowing, "--precision", "fp16")
    assert done.returncode == 1
    assert f"{4 * TINY.dim}!" in done.stdout
    assert "FAIL: these weights must not be served in fp16 on CPU: no finite" in done.stdout
    assert "out of bounds: nan, cosine_min." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


# --- what workers make of it --------------------------------------------------------------------


@pytest.fixture
def cached_fleet(fleet, cache) -> Fleet:
    """A fleet on a machine where ``validate`` ran."""
    return replace(fleet, environment={**fleet.environment, "XDG_CACHE_HOME": str(cache)})


def start(model: Path, fleet: Fleet) -> "subprocess.CompletedProcess[str]":
    """Start a worker in FP16 that is expected to end by itself."""
    options = ["--model", model, "--precision", "fp16", "--gpus", "none"]
    return run("workers.cli", "start", *options, environment=fleet.environment)


def assert_refused(done: "subprocess.CompletedProcess[str]", folder: Path) -> None:
    (record,) = records(folder)
    assert done.returncode == 2, done.stderr
    assert "must not be served in fp16 on CPU: their validation there of 2" in done.stderr
    assert f"The record is file://{record}." in done.stderr
    assert "worker validate --model " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_in_the_store_is_refused_on_every_machine(validate, overflowing, fleet, tmp_path):
    folder_store(tmp_path / "store")
    validate("--model", overflowing, "--precision", "fp16", "--store", fleet.store_url)
    elsewhere = replace(fleet, environment={**fleet.environment, "XDG_CACHE_HOME": str(tmp_path)})
    assert_refused(start(overflowing, elsewhere), tmp_path / "store")
    assert not fleet.ledger.workers.all()


def test_a_failure_in_the_cache_is_refused_and_another_precision_is_served(
    validate, overflowing, cached_fleet, cache, tmp_path
):
    validate("--model", overflowing, "--precision", "fp16")
    assert_refused(start(overflowing, cached_fleet), cache)
    with cached_fleet.workers(overflowing, tmp_path, "--precision=fp32"):
        (worker,) = cached_fleet.ledger.workers.all()
        assert worker.precision == "fp32"


def test_who_passes_after_a_failure_is_served(validate, tiny, cached_fleet, cache, tmp_path):
    command = ("--model", tiny, "--precision", "fp16")
    assert validate(*command).returncode == 0
    (record,) = records(cache)
    record.write_text(record.read_text().replace('"passed": true', '"passed": false'))
    assert_refused(start(tiny, cached_fleet), cache)
    assert validate(*command).returncode == 0
    with cached_fleet.workers(tiny, tmp_path, "--precision=fp16"):
        (worker,) = cached_fleet.ledger.workers.all()
        assert worker.precision == "fp16"


def test_a_local_run_ends_with_the_refusal(validate, overflowing, examples, cache, tmp_path):
    validate("--model", overflowing, "--precision", "fp16")
    done = run_producer(
        *("submit", examples, "--local", "--model", overflowing, "--precision", "fp16"),
        *("-o", "e.h5"),
        environment=clean_environment(XDG_CACHE_HOME=str(cache)),
        cwd=tmp_path,
    )
    assert_refused(done, cache)
    assert not list(tmp_path.glob("e.h5*"))


# --- what cannot be done ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "esm3"], "Unknown model 'esm3'"),
        (["--model", "./nowhere.pt"], "nowhere.pt: no such folder or file with weights"),
        (["--device", "cuda"], "PyTorch finds no GPU here"),
        (["--precision", "fp32"], "--precision"),
        (["--picture", "nowhere/c.png"], "--picture nowhere/c.png: name a file in a folder"),
        (["--store", "gs://b"], "s3://bucket/prefix"),
        (["--weights", "other.pt"], "already names the weights"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_before_any_work(validate, tiny, cache, options, message):
    model = [] if "--model" in options else ["--model", tiny]
    done = validate(*model, *options)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "Embedding" not in done.stderr
    assert not records(cache)


def test_a_range_of_lengths_has_two_ends(validate, tiny):
    done = validate("--model", tiny, count=1)
    assert done.returncode == 2
    assert "--sequences-per-set" in done.stderr


def test_weights_of_another_shape_are_refused_by_name(validate, tiny, cache):
    done = validate("--model", "esm2_t6_8M_UR50D", "--weights", tiny)
    assert done.returncode == 2
    assert "ESM-2 with 2 layers, width 64, 4 heads and layer_norm_eps 1e-05, but" in done.stderr
    assert not records(cache)


def test_nothing_is_validated_where_half_precision_is_disabled(validate, tiny):
    done = validate("--model", tiny, VIRNUCPRO_DISABLE_FP16="1")
    assert done.returncode == 2
    assert "VIRNUCPRO_DISABLE_FP16 is set" in done.stderr
