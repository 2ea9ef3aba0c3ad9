"""Recorded validations: their keys, the newest copy, and a worker's refusal."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.rungs import Rung
from common.store import FileStore, open_store
from common.store.base import MARKER
from tests.support.stores import folder_store
from workers.validation.record import (
    Compared,
    UserCache,
    ValidatedSet,
    Validation,
    Verdict,
    record_key,
    record_stores,
    refusal,
    write_record,
)
from workers.validation.statistics import THRESHOLDS, Comparison

FINGERPRINT = "0123456789abcdef"
H200, A100 = "NVIDIA H200", "NVIDIA A100-SXM4-40GB"
KEY = f"validations/{FINGERPRINT}.fp16.nvidia-h200.json"
WORST = "short, fp16 packed against fp32 padded"
DAY = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


def validation(**changes: object) -> Validation:
    """A failed validation: a cosine below the floor, and values that are not finite."""
    figures = Comparison(
        cosines=(0.5, None),
        cosine_min=0.5,
        cosine_mean=0.5,
        centred_cosine_min=None,
        mean_difference=0.0,
        std_difference=0.0,
        norm_difference=0.0,
        outliers=0.0,
        nan=12,
        inf=1,
    )
    compared = Compared(
        set="short",
        measured="fp16 packed",
        reference="fp32 padded",
        passed=figures.passed,
        failures=figures.failures,
        figures=figures,
    )
    fields = {
        "model": "esm2_t33_650M_UR50D",
        "weights": None,
        "random_weights": False,
        "fingerprint": FINGERPRINT,
        "precision": Rung.FP16,
        "device": H200,
        "date": DAY,
        "passed": False,
        "failures": figures.failures,
        "worst": WORST,
        "cosine_min": 0.5,
        "nan": 12,
        "inf": 1,
        "unit": "residues",
        "versions": {"torch": "2.13.0"},
        "thresholds": THRESHOLDS,
        "seed": 0,
        "sets": (ValidatedSet(name="short", lengths=(1, 49)),),
        "comparisons": (compared,),
    }
    return Validation(**{**fields, **changes})


PASSED = {"passed": True, "failures": (), "cosine_min": 0.99999, "nan": 0, "inf": 0}


# --- where --------------------------------------------------------------------------------------


def test_a_record_is_in_the_users_cache_and_in_the_store(tmp_path):
    stores = record_stores(folder_store(tmp_path / "store").url)
    places = write_record(validation(), stores)
    files = [tmp_path / "cache" / "virnucpro-fleet" / KEY, tmp_path / "store" / KEY]
    assert places == [f"file://{file}" for file in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list((tmp_path / "cache").rglob(MARKER))


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_a_validation_makes_no_store_where_one_is_not_mounted(tmp_path, caplog, left):
    root = tmp_path / "mount" / "store"
    if left == "an empty mount point":
        root.mkdir(parents=True)
    (written,) = write_record(validation(), record_stores(str(root)))
    assert written == f"{UserCache().url}/{KEY}"
    assert f"not recorded in file://{root}: file://{root} is not a store. Is it mounted?" in (
        caplog.text
    )
    assert list(tmp_path.glob("mount/store/*")) == []
    assert root.exists() == (left != "nothing")


def test_without_a_store_a_record_is_in_the_cache_alone(tmp_path):
    (only,) = record_stores(None)
    assert only.url == f"file://{tmp_path}/cache/virnucpro-fleet"


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_without_a_cache_folder_that_can_be_it_is_the_one_in_the_home_folder(
    monkeypatch, tmp_path, value
):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert UserCache().root == tmp_path / ".cache" / "virnucpro-fleet"


def test_precisions_and_devices_have_records_of_their_own():
    assert record_key(FINGERPRINT, Rung.FP16, H200) == KEY
    assert record_key(FINGERPRINT, Rung.BF16, H200) != KEY
    assert record_key(FINGERPRINT, Rung.FP16, A100) != KEY


@pytest.mark.parametrize(
    ("device", "slug"),
    [
        ("CPU", "cpu"),
        (A100, "nvidia-a100-sxm4-40gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "nvidia-h100-80gb-hbm3-mig-1g-10gb"),
        ("../AMD / Radeon (TM)", "amd-radeon-tm"),
    ],
)
def test_a_devices_name_becomes_a_part_of_a_files_name(device, slug):
    assert record_key(FINGERPRINT, Rung.BF16, device) == (
        f"validations/{FINGERPRINT}.bf16.{slug}.json"
    )


def test_a_store_that_cannot_be_written_is_a_warning_and_the_others_are(tmp_path, store, caplog):
    (tmp_path / "file").touch()
    blocked = FileStore(tmp_path / "file")
    assert write_record(validation(), [blocked, store]) == [f"{store.url}/{KEY}"]
    assert f"not recorded in {blocked.url}" in caplog.text


def test_a_record_has_everything_and_reads_back_the_same(store):
    written = validation()
    write_record(written, [store])
    assert Validation.model_validate_json(store.get(KEY)) == written
    document = json.loads(store.get(KEY))
    assert document["thresholds"]["cosine_floor"] == 0.99
    assert document["comparisons"][0]["figures"]["cosines"] == [0.5, None]
    assert document["comparisons"][0]["failures"] == ["nan", "inf", "cosine_min"]


# --- what a worker is told ----------------------------------------------------------------------


def test_a_failure_on_record_refuses_and_says_which_when_why_and_what_to_do(store):
    write_record(validation(), [store])
    text = refusal(FINGERPRINT, Rung.FP16, H200, [store])
    assert text is not None
    for part in (
        f"fingerprint {FINGERPRINT}",
        "must not be served in fp16 on NVIDIA H200: their validation there of 2026-03-14 15:09 UTC",
        f"smallest cosine 0.500000 (floor 0.99) in {WORST}; 12 NaN, 1 Inf",
        "out of bounds: nan, inf, cosine_min.",
        f"{store.url}/{KEY}",
        "precision fp32 or bf16",
        "worker validate --model esm2_t33_650M_UR50D --precision fp16",
    ):
        assert part in text


def test_who_failed_in_bf16_is_not_sent_there(store):
    write_record(validation(precision=Rung.BF16), [store])
    text = refusal(FINGERPRINT, Rung.BF16, H200, [store])
    assert text is not None
    assert "precision fp32, or validate again" in text


def test_the_command_that_validates_again_names_the_same_weights():
    again = validation(weights="/weights of mine/650M.pt").command
    assert again == (
        "worker validate --model esm2_t33_650M_UR50D --weights '/weights of mine/650M.pt' "
        "--precision fp16"
    )


def test_a_validation_of_the_cpu_is_repeated_on_the_cpu():
    assert validation(device="CPU").command.endswith("--precision fp16 --device cpu")


def test_a_failure_by_another_figure_than_the_cosine_is_named():
    only = {**PASSED, "passed": False, "failures": ("norm_difference",)}
    assert validation(**only).summary == (
        f"smallest cosine 0.999990 (floor 0.99) in {WORST}; 0 NaN, 0 Inf; "
        "out of bounds: norm_difference"
    )


def test_a_pass_on_record_refuses_nothing(store):
    write_record(validation(**PASSED), [store])
    assert refusal(FINGERPRINT, Rung.FP16, H200, [store]) is None


def test_what_was_never_validated_may_be_served(store):
    write_record(validation(), [store])
    assert refusal("f" * 16, Rung.FP16, H200, [store]) is None
    assert refusal(FINGERPRINT, Rung.BF16, H200, [store]) is None
    assert refusal(FINGERPRINT, Rung.FP16, A100, [store]) is None
    assert refusal(FINGERPRINT, Rung.FP16, H200, []) is None


def test_a_newer_pass_on_another_device_does_not_lift_a_failure(tmp_path, store):
    cache = folder_store(tmp_path / "own")
    write_record(validation(), [store])
    write_record(validation(**PASSED, device="CPU", date=DAY + timedelta(days=1)), [cache, store])
    assert refusal(FINGERPRINT, Rung.FP16, H200, [cache, store]) is not None
    assert refusal(FINGERPRINT, Rung.FP16, "CPU", [cache, store]) is None


@pytest.mark.parametrize("newest_passes", [True, False])
@pytest.mark.parametrize("newest_first", [True, False])
def test_the_newest_of_several_records_counts(tmp_path, newest_passes, newest_first):
    stores = [folder_store(tmp_path / "one"), folder_store(tmp_path / "other")]
    old, new = (validation(), validation(**PASSED, date=DAY + timedelta(days=1)))
    if not newest_passes:
        old, new = (validation(**PASSED), validation(date=DAY + timedelta(days=1)))
    for each, store in zip((new, old) if newest_first else (old, new), stores, strict=True):
        write_record(each, [store])
    assert (refusal(FINGERPRINT, Rung.FP16, H200, stores) is None) is newest_passes


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"passed": false',
        b'{"passed": false}',
        validation().json_text.replace("2026-03-14T15:09:00Z", "2026-03-14T15:09:00").encode(),
        validation(fingerprint="f" * 16).json_text.encode(),
        validation(device=A100).json_text.encode(),
    ],
    ids=[
        *("empty", "binary", "list", "null", "cut", "bare", "no_time_zone"),
        *("of_other_weights", "of_another_device"),
    ],
)
def test_a_damaged_record_is_a_warning_and_the_others_count(store, tmp_path, caplog, damage):
    store.put(KEY, damage)
    with caplog.at_level(logging.WARNING):
        assert refusal(FINGERPRINT, Rung.FP16, H200, [store]) is None
    assert f"{store.url}/{KEY} is not a readable validation" in caplog.text
    other = folder_store(tmp_path / "other")
    write_record(validation(), [other])
    assert other.url in str(refusal(FINGERPRINT, Rung.FP16, H200, [store, other]))


def test_a_store_that_does_not_answer_is_a_warning(store, monkeypatch, caplog):
    write_record(validation(), [store])
    (store.root / KEY).unlink()
    (store.root / KEY).mkdir()
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert refusal(FINGERPRINT, Rung.FP16, H200, [store]) is None
    assert "No validation can be read" in caplog.text


def test_a_newer_record_with_more_in_it_can_be_read(store):
    document = json.loads(validation().json_text)
    store.put(KEY, json.dumps({**document, "version": 2, "weather": "fine"}).encode())
    assert refusal(FINGERPRINT, Rung.FP16, H200, [store]) is not None


def test_a_worker_reads_only_what_it_needs(store):
    needed = {name: json.loads(validation().json_text)[name] for name in Verdict.model_fields}
    store.put(KEY, json.dumps(needed).encode())
    assert refusal(FINGERPRINT, Rung.FP16, H200, [store]) is not None


def test_records_lie_in_any_store(tmp_path):
    folder_store(tmp_path / "plain")
    assert write_record(validation(), [open_store(str(tmp_path / "plain"))])
