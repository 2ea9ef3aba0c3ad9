"""Checks of weights: found, whole, or not there, without loading them."""

import json
import threading

import pytest
import torch
from safetensors.torch import save_file

from common.checks.check import Check, Outcome
from common.checks.installation import check_message_key, check_packages
from common.checks.rights import Role
from common.checks.weights import check_weights
from common.model_source import ModelSource
from common.settings import Settings
from tests.support.adapter_config import write_adapter
from tests.unit.common.weights.test_local import CONFIG


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a": torch.zeros(1000), "b": torch.zeros(7)}, made / "model.safetensors")
    return made


def check(model, role: Role = "worker") -> Check:
    [found] = check_weights(ModelSource.parse(model), role)
    return found


def test_weights_that_are_there_are_described(folder):
    found = check(folder)
    assert found.outcome is Outcome.OK
    assert "2 files" in found.text
    assert "ESM-2 with 2 layers of 64" in found.text
    assert ModelSource.parse(folder).digest() in found.text


def test_an_adapter_is_described_with_its_base(folder, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", base_model_name_or_path=str(folder))
    save_file({"a": torch.zeros(8)}, adapter / "adapter_model.safetensors")
    found = check(adapter)
    assert found.outcome is Outcome.OK
    assert "4 files" in found.text
    assert "ESM-2 with 2 layers of 64" in found.text
    write_adapter(adapter, base_model_name_or_path="facebook/esm2_t6_8M_UR50D")
    own, base = check_weights(ModelSource.parse(adapter), "worker")
    assert own.outcome is Outcome.OK
    assert "esm2_t6_8M_UR50D" in base.text
    assert base.outcome is not Outcome.OK


@pytest.mark.parametrize("role", ["worker", "producer"])
def test_weights_that_take_long_to_read_are_described_without_a_digest(folder, monkeypatch, role):
    read = threading.Event()
    monkeypatch.setattr("common.model_digest.hash_file", lambda *_: "0" if read.wait(60) else "")
    monkeypatch.setattr("common.checks.weights.DIGEST_SECONDS", 0.1)
    found = check(folder, role)
    read.set()
    assert found.outcome is Outcome.WARNING
    assert "2 files, 0.00 GB" in found.text
    assert "ESM-2 with 2 layers of 64" in found.text
    assert "0.1 s are too short to read them" in found.text


@pytest.mark.parametrize("size", [4, 100, 4000])
def test_a_file_that_was_cut_off_is_said(folder, size):
    file = folder / "model.safetensors"
    with file.open("rb+") as opened:
        opened.truncate(size)
    found = check(folder)
    assert found.outcome is Outcome.FAILED
    assert str(file) in found.text


def test_weights_that_are_not_there_are_said(tmp_path):
    found = check(tmp_path / "none")
    assert found.outcome is Outcome.FAILED
    assert found.advice == "mount it, or correct --model"


def test_weights_of_the_hub_are_looked_for_in_its_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = check("esm2_t6_8M_UR50D@v1")
    assert found.outcome is Outcome.FAILED
    assert "worker download --model esm2_t6_8M_UR50D@v1" in found.advice
    repository = tmp_path / "models--facebook--esm2_t6_8M_UR50D"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("0" * 40))
    found = check("esm2_t6_8M_UR50D@v1")
    assert found.outcome is Outcome.OK
    assert f"at revision v1, commit {'0' * 40}, in the cache {tmp_path}" in found.text


def test_a_producer_needs_no_weights(folder, tmp_path):
    assert ModelSource.parse(folder).digest() in check(folder, "producer").text
    assert check("esm2_t6_8M_UR50D", "producer").outcome is Outcome.OK
    assert check(tmp_path / "none", "producer").outcome is Outcome.WARNING


def test_random_weights_need_nothing():
    assert check("random:esm2_t6_8M_UR50D").outcome is Outcome.OK


def test_the_key_of_messages_is_named_and_not_shown(monkeypatch):
    [none] = check_message_key(Settings())
    assert none.outcome is Outcome.WARNING
    monkeypatch.setenv("VIRNUCPRO_MESSAGE_KEY", "0123456789abcdef,fedcba9876543210")
    [found] = check_message_key(Settings.read())
    assert found.outcome is Outcome.OK
    assert "0123456789abcdef" not in found.text
    assert all(name in found.text for name in Settings.read().message_keys().ids)


def test_packages_of_another_series_are_said(monkeypatch):
    [found] = check_packages("torch")
    assert found.outcome is Outcome.OK
    assert "torch" in found.text
    monkeypatch.setattr("common.checks.installation.SERIES", {"celery": "5.6.", "kombu": "5.7."})
    [found] = check_packages()
    assert (found.outcome, found.advice) == (Outcome.FAILED, "install celery 5.6.x")
