"""The configuration of adapters: which are merged, and where their base is."""

import json

import pytest

from common.adapters import read_adapter
from common.errors import UserError
from common.model_files import model_files
from common.model_source import ModelSource
from common.model_specs import MODELS
from tests.support.adapter_config import write_adapter

HUB = "facebook/esm2_t6_8M_UR50D"
NAME = "esm2_t6_8M_UR50D"


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, NAME),
        ({"revision": None}, NAME),
        ({"revision": "v2"}, f"{NAME}@v2"),
        ({"base_model_name_or_path": NAME}, NAME),
        ({"base_model_name_or_path": "zhihan1996/DNABERT-S"}, "dnabert_s"),
    ],
)
def test_a_base_of_the_hub_is_known_by_its_name(tmp_path, settings, base):
    folder = write_adapter(tmp_path / "a", **{"base_model_name_or_path": HUB, **settings})
    assert read_adapter(folder).base == base
    assert read_adapter(folder).base_folder is None
    spec = ModelSource.parse(folder).spec()
    assert spec is not None
    assert (spec.name, spec.dim) == ("a", MODELS[base.partition("@")[0]].dim)


def test_a_base_in_a_folder_is_its_path_or_relative_to_the_adapter(tmp_path):
    absolute = write_adapter(tmp_path / "a", base_model_name_or_path="/models/esm2")
    assert read_adapter(absolute).base == "/models/esm2"
    (tmp_path / "esm2").mkdir()
    relative = write_adapter(tmp_path / "b", base_model_name_or_path="../esm2")
    assert read_adapter(relative).base_folder == (tmp_path / "esm2").resolve()


def test_a_base_beside_the_adapter_comes_first(tmp_path):
    folder = write_adapter(tmp_path / "a", base_model_name_or_path=HUB)
    (tmp_path / "esm2").mkdir()
    (folder / "base").symlink_to(tmp_path / "esm2")
    assert read_adapter(folder).base_folder == (tmp_path / "esm2").resolve()


@pytest.mark.parametrize("named", ["./runs/esm2", "facebook/esm_msa1b_t12_100M_UR50S", "", None, 3])
def test_a_base_that_is_no_model_is_refused_with_what_to_do(tmp_path, named):
    folder = write_adapter(tmp_path / "a", base_model_name_or_path=named)
    with pytest.raises(UserError, match=rf"ln -s /path/of/base {folder}/base"):
        read_adapter(folder)


def test_a_base_that_is_an_adapter_or_a_file_is_refused(tmp_path):
    first = write_adapter(tmp_path / "a", base_model_name_or_path=HUB)
    second = write_adapter(tmp_path / "b", base_model_name_or_path=str(first))
    with pytest.raises(UserError, match="is an adapter too"):
        read_adapter(second)
    (tmp_path / "esm2.pt").write_text("weights")
    third = write_adapter(tmp_path / "c", base_model_name_or_path=str(tmp_path / "esm2.pt"))
    with pytest.raises(UserError, match=r"esm2\.pt is a file"):
        read_adapter(third)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("peft_type", "PROMPT_TUNING"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("trainable_token_indices", [1, 2]),
        ("layer_replication", [[0, 2]]),
        ("target_parameters", ["query.weight"]),
        ("use_qalora", True),
        ("ensure_weight_tying", True),
    ],
)
def test_what_is_more_than_lora_is_refused_by_name_with_what_to_do(tmp_path, setting, value):
    folder = write_adapter(
        tmp_path / "a",
        **{"base_model_name_or_path": HUB, "trainable_token_indices": None, setting: value},
    )
    with pytest.raises(UserError, match=rf"{setting} is .*merge_and_unload\(\)"):
        model_files(folder)


def test_a_configuration_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="not a readable model configuration"):
        ModelSource.parse(tmp_path).files()


def test_the_digest_changes_with_either_file_and_with_the_base(tmp_path):
    base = tmp_path / "esm2"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_text("weights")
    folder = write_adapter(tmp_path / "a", base_model_name_or_path=str(base))
    (folder / "adapter_model.safetensors").write_text("factors")
    source = ModelSource.parse(folder)
    digests = [source.digest()]
    (folder / "adapter_model.safetensors").write_text("others")
    digests.append(source.digest())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 9}))
    digests.append(source.digest())
    (base / "model.safetensors").write_text("other weights")
    digests.append(source.digest())
    assert len(set(digests)) == 4
    assert None not in digests
