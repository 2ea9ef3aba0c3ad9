"""Adapters of LoRA: PEFT is the oracle, on small random models."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import EsmForMaskedLM, EsmModel

from common.adapters import CONFIG
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_source import ModelSource
from tests.conftest import ROOT
from tests.support.adapters import (
    PROTEINS,
    adapted,
    hidden_of,
    logits_of,
    randomise,
    save_adapter,
    save_model,
)
from tests.support.dnabert import random_checkpoint, reference, save_checkpoint, small_spec
from tests.support.hub import running_hub
from workers.engine.attributes import model_attributes
from workers.engine.engine import Engine
from workers.models.loading import load_model

FORM = OutputForm(max_residues=1022)
RECORDS = [Record(row, f"P{row}", protein) for row, protein in enumerate(PROTEINS)]
#: Where one of the layers of DNABERT-S is.
LAYER = "encoder.layer.0"

QUERY_VALUE = {"target_modules": ["query", "value"], "r": 4, "lora_alpha": 6}
DENSE = {"target_modules": ["query", "key", "value", "dense"], "r": 4}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "usual": QUERY_VALUE,
    "all linear layers": {**DENSE, "lora_alpha": 3},
    "rslora": {**QUERY_VALUE, "use_rslora": True},
    "patterns": {
        **QUERY_VALUE,
        "rank_pattern": {"layer.1.attention.self.query": 2, "value": 3},
        "alpha_pattern": {"esm.encoder.layer.0.attention.self.query": 9, r"layer\.2\..*value": 1},
    },
    "all biases": {**QUERY_VALUE, "bias": "all"},
    "biases of LoRA": {**DENSE, "bias": "lora_only"},
    "a bias of the factors": {**QUERY_VALUE, "lora_bias": True},
    "modules to save": {**QUERY_VALUE, "modules_to_save": ["emb_layer_norm_after", "lm_head"]},
    "biases and modules to save": {**QUERY_VALUE, "bias": "all", "modules_to_save": ["lm_head"]},
    "embeddings": {**QUERY_VALUE, "target_modules": ["query", "word_embeddings"]},
    "saved embeddings": {**QUERY_VALUE, "modules_to_save": ["word_embeddings"]},
    "DoRA": {**DENSE, "use_dora": True},
    "DoRA and rslora": {**QUERY_VALUE, "use_dora": True, "use_rslora": True},
    "fan_in_fan_out": {**QUERY_VALUE, "fan_in_fan_out": True},
    "some layers": {**QUERY_VALUE, "layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("base") / "esm2_small")


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    return save_adapter(tmp_path / "adapter", base, **QUERY_VALUE)


def engine_of(folder: Path) -> Engine:
    return Engine(load_model(folder, dtype=torch.float32))


def means(folder: Path) -> np.ndarray[Any, Any]:
    return engine_of(folder).embed(RECORDS, FORM).embeddings.pooled["mean"]


def expected_means(model: Any) -> np.ndarray[Any, Any]:
    return torch.stack([hidden_of(model, protein)[1:-1].mean(0) for protein in PROTEINS]).numpy()


@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_vectors_and_logits_are_those_of_peft(base, tmp_path, settings):
    folder = save_adapter(tmp_path / "adapter", base, **settings)
    oracle = adapted(folder, base)
    engine = engine_of(folder)
    form = FORM.model_copy(update={"include": ("mean", "logits")})
    found = engine.embed(RECORDS, form).embeddings
    expected = expected_means(oracle)
    assert np.abs(expected - means(base)).max() > 0.05
    np.testing.assert_allclose(found.pooled["mean"], expected, atol=1e-5)
    logits = torch.cat([logits_of(oracle, protein)[1:-1] for protein in PROTEINS])
    np.testing.assert_allclose(found.scores["logits"], logits, atol=1e-4)


def test_an_adapter_of_the_bare_encoder_fits_a_base_with_a_head(base, tmp_path):
    folder = save_adapter(tmp_path / "adapter", base, EsmModel, bias="all", **QUERY_VALUE)
    oracle = adapted(folder, base, EsmModel)
    np.testing.assert_allclose(means(folder), expected_means(oracle), atol=1e-5)


def test_a_base_in_half_precision_is_merged_in_fp32(base, tmp_path):
    half = tmp_path / "half"
    EsmForMaskedLM.from_pretrained(base).half().save_pretrained(half)
    folder = save_adapter(tmp_path / "adapter", half, **QUERY_VALUE)
    oracle = adapted(folder, half).float()
    np.testing.assert_allclose(means(folder), expected_means(oracle), atol=2e-5)


def test_a_pickled_adapter_is_read_safely(adapter):
    before = means(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    assert np.array_equal(means(adapter), before)
    torch.save(Path("anything"), adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="damaged, or contains more than weights"):
        load_model(adapter, dtype=torch.float32)


def test_both_are_recorded_and_the_fingerprint_is_of_the_merged_weights(base, adapter, tmp_path):
    loaded = load_model(adapter, dtype=torch.float32)
    of_base = load_model(base, dtype=torch.float32)
    found = model_attributes(loaded, FORM)
    assert found["model"] == str(adapter)
    assert found["base_model"] == str(base)
    assert found["base_weights"] == of_base.fingerprint != loaded.fingerprint == found["weights"]
    merged = tmp_path / "merged"
    adapted(adapter, base).merge_and_unload().save_pretrained(merged)
    merged_by_peft = load_model(merged, dtype=torch.float32)
    np.testing.assert_allclose(means(merged), means(adapter), atol=1e-5)
    assert model_attributes(merged_by_peft, FORM).keys().isdisjoint({"base_model", "base_weights"})
    other = save_adapter(tmp_path / "other", base, seed=5, **QUERY_VALUE)
    theirs = model_attributes(load_model(other, dtype=torch.float32), FORM)
    assert theirs["base_weights"] == found["base_weights"]
    assert theirs["adapter_weights"] != found["adapter_weights"]
    assert theirs["weights"] != found["weights"]


def test_a_base_beside_the_adapter_comes_before_the_one_that_is_named(base, adapter, tmp_path):
    before = means(adapter)
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(UserError, match=r"/elsewhere, is not here.*ln -s /path/of/base .*/base"):
        load_model(adapter, dtype=torch.float32)
    (adapter / "base").symlink_to(base)
    assert np.array_equal(means(adapter), before)


def test_a_base_of_the_hub_is_downloaded_before_it_is_loaded(base, adapter, tmp_path):
    config = json.loads((adapter / CONFIG).read_text())
    named = {"base_model_name_or_path": "facebook/esm2_t6_8M_UR50D", "revision": "v1.0"}
    (adapter / CONFIG).write_text(json.dumps({**config, **named}))
    script = """
import sys, torch
from common.model_source import ModelSource
from common.weights.local import local_weights
from workers.models.loading import load_model
source = ModelSource.parse(sys.argv[1])
local_weights(source)
loaded = load_model(source, dtype=torch.float32)
print(loaded.fingerprint, loaded.origins["base_model"])
"""
    with running_hub() as hub:
        hub.push_folder("facebook/esm2_t6_8M_UR50D", base, "v1.0")
        done = subprocess.run(
            [sys.executable, "-c", script, str(adapter)],
            env={**os.environ, **hub.environment(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    (adapter / "base").symlink_to(base)
    expected = load_model(adapter, dtype=torch.float32).fingerprint
    assert done.stdout.split() == [expected, "esm2_t6_8M_UR50D@v1.0"]


def test_a_base_of_another_shape_is_refused(adapter, tmp_path):
    (adapter / "base").mkdir()
    other = tmp_path / "other"
    save_model(other, EsmModel)
    small = load_file(other / "model.safetensors")
    kept = {name: t for name, t in small.items() if "layer.2." not in name}
    save_file(kept, adapter / "base" / "model.safetensors", {"format": "pt"})
    config = json.loads((other / "config.json").read_text())
    (adapter / "base" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"changes .*layer\.2.*which its base .* does not have"):
        load_model(adapter, dtype=torch.float32)


def damaged(adapter: Path, change: Any) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def test_an_adapter_that_lacks_a_factor_is_refused(adapter):
    damaged(adapter, lambda tensors: tensors.pop(next(n for n in tensors if "lora_B" in n)))
    with pytest.raises(UserError, match="has only A of LoRA: the file is damaged"):
        load_model(adapter, dtype=torch.float32)


def test_a_tensor_that_lora_does_not_have_is_refused(adapter):
    name = "base_model.model.esm.encoder.layer.0.attention.self.query.lora_diag"
    damaged(adapter, lambda tensors: tensors.update({name: torch.zeros(4)}))
    with pytest.raises(UserError, match="lora_diag is a tensor that is not known of LoRA"):
        load_model(adapter, dtype=torch.float32)


def test_factors_that_do_not_fit_are_refused(adapter):
    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        name = next(n for n in tensors if "lora_A" in n)
        tensors[name] = tensors[name][:, :-3].clone()

    damaged(adapter, shorten)
    with pytest.raises(UserError, match=r"query of the adapter does not fit its base"):
        load_model(adapter, dtype=torch.float32)


def test_a_scaling_that_is_no_number_is_refused(adapter):
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, "lora_alpha": "large"}))
    with pytest.raises(UserError, match="lora_alpha or alpha_pattern cannot be used for"):
        load_model(adapter, dtype=torch.float32)


def test_the_shape_is_known_without_the_weights_of_the_base(base, adapter):
    spec = ModelSource.parse(adapter).spec()
    assert spec is not None
    assert (spec.name, spec.layers, spec.dim) == ("adapter", 3, 64)
    assert spec == load_model(adapter, dtype=torch.float32).spec


def test_an_adapter_of_dnabert_s_is_merged_as_by_peft(tmp_path):
    """PEFT knows the model as modules with its names; the vectors are by the equations."""
    spec = small_spec(heads=4, dim=128)
    weights = random_checkpoint(spec)
    base = save_checkpoint(spec, {f"bert.{k}": v for k, v in weights.items()}, tmp_path / "base")
    modules = ["Wqkv", "gated_layers", "wo", "dense"]
    model = get_peft_model(modules_of(weights), LoraConfig(target_modules=modules, r=4))
    torch.manual_seed(1)
    randomise(model, only_trained=True)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "base").symlink_to(base)
    engine = engine_of(tmp_path / "adapter")
    record = Record(0, "d", "ACGTACGTTTGACCA" * 4)
    found = engine.embed([record], OutputForm(max_residues=1000)).embeddings.pooled["mean"][0]
    merged = model.merge_and_unload().state_dict()
    assert not torch.equal(merged[f"{LAYER}.mlp.wo.weight"], weights[f"{LAYER}.mlp.wo.weight"])
    tokens = torch.from_numpy(engine.loaded.tokenize([record.residues]).ids).long()
    expected = reference({**weights, **merged}, tokens, spec.heads)[-1].mean(0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def modules_of(weights: dict[str, torch.Tensor]) -> nn.Module:
    """Return linear layers under the names of a checkpoint's matrices."""
    root = nn.Module()
    for name, weight in weights.items():
        path, _, kind = name.rpartition(".")
        if kind != "weight" or weight.ndim != 2 or "embeddings" in path:
            continue
        *parents, last = path.split(".")
        place = root
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        bias = weights.get(f"{path}.bias")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
        place.add_module(last, layer)
    return root
