"""Weights of another kind than expected: read where that is sure, else named for what they are."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from common.model_specs import ModelSpec
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.hugging_face import to_hugging_face
from workers.models.loading import load_model

SPEC = ModelSpec(name="esm2_small", layers=2, dim=32, heads=2)

WORDS = "esm.embeddings.word_embeddings.weight"
QUERY = "esm.encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "model"
    to_hugging_face(random_fair_esm(SPEC)).save_pretrained(path)
    return path


@pytest.fixture
def weights(folder) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def fingerprint(path: Path) -> str:
    return load_model(str(path), dtype=torch.float32).fingerprint


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        fingerprint(path)
    assert str(path) in str(caught.value)
    assert "blocks." not in str(caught.value)
    return str(caught.value)


def save(weights: dict[str, Tensor], file: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in weights.items()}, file)


def in_one(folder: Path, weights: dict[str, Tensor]) -> None:
    save(weights, folder / "model.safetensors")


def pickled(folder: Path, content: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def renamed(weights: dict[str, Tensor], change: Callable[[str], str]) -> dict[str, Tensor]:
    return {change(name): tensor for name, tensor in weights.items()}


# --- wrappers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module."])
def test_what_wraps_a_whole_model_changes_nothing(folder, weights, prefix):
    before = fingerprint(folder)
    in_one(folder, renamed(weights, lambda name: prefix + name))
    assert fingerprint(folder) == before


def test_a_compiled_part_changes_nothing(folder, weights):
    before = fingerprint(folder)
    in_one(folder, renamed(weights, lambda name: name.replace("esm.", "esm._orig_mod.")))
    assert fingerprint(folder) == before


def test_a_checkpoint_of_lightning_in_a_folder_is_read(folder, weights):
    before = fingerprint(folder)
    state = renamed(weights, lambda name: f"model.{name}")
    pickled(folder, {"epoch": 3, "state_dict": state, "optimizer_states": []})
    assert fingerprint(folder) == before


def test_a_wrapped_fair_esm_checkpoint_is_read(tmp_path):
    file = save_fair_esm(random_fair_esm(SPEC), tmp_path / "esm2_small.pt")
    before = fingerprint(file)
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(file, weights_only=True)
    data["model"] = renamed(data["model"], lambda name: f"module.{name}")
    torch.save(data, file)
    assert fingerprint(file) == before


def test_another_prefix_is_told_by_the_names_in_the_file(folder, weights):
    in_one(folder, renamed(weights, lambda name: f"backbone.{name}"))
    message = refusal(folder)
    assert "no tensor embeddings.word_embeddings.weight. It has backbone.esm." in message


@pytest.mark.parametrize("other", [f"module.{WORDS}", WORDS.removeprefix("esm.")])
def test_two_models_in_one_file_are_refused(folder, weights, other):
    in_one(folder, weights | {other: weights[WORDS] + 1})
    assert "is in these weights twice" in refusal(folder)


# --- files ------------------------------------------------------------------------------------


def test_a_second_safetensors_file_does_not_win(folder, weights):
    before = fingerprint(folder)
    save({name: tensor * 2 for name, tensor in weights.items()}, folder / "z.safetensors")
    assert fingerprint(folder) == before


def split(folder: Path, weights: dict[str, Tensor], **also: Tensor) -> dict[str, str]:
    """Write weights in two files, and return the places of an index."""
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save({name: weights[name] for name in part} | also, folder / file)
    return {name: file for file, part in halves.items() for name in part}


def write_index(folder: Path, places: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_the_files_of_an_index_are_read(folder, weights):
    before = fingerprint(folder)
    write_index(folder, split(folder, weights))
    save({name: tensor * 2 for name, tensor in weights.items()}, folder / "z.safetensors")
    assert fingerprint(folder) == before


def test_a_tensor_in_two_files_is_refused(folder, weights):
    write_index(folder, split(folder, weights, **{WORDS: weights[WORDS]}))
    assert f"{WORDS} is in these weights twice" in refusal(folder)


def test_a_tensor_that_the_index_lists_elsewhere_is_named(folder, weights):
    places = split(folder, weights)
    places[WORDS] = {"a.safetensors": "b.safetensors", "b.safetensors": "a.safetensors"}[
        places[WORDS]
    ]
    write_index(folder, places)
    assert f"no tensor {WORDS}, which the index" in refusal(folder)


@pytest.mark.parametrize("name", ["model/model.safetensors", "esm2_small.pt"])
def test_a_loaded_model_does_not_change_with_its_file(folder, name):
    """A worker on a CPU in FP32 has the numbers of the file, which may be overwritten in place."""
    tmp_path = folder.parent
    save_fair_esm(random_fair_esm(SPEC), tmp_path / "esm2_small.pt")
    file = tmp_path / name
    model = load_model(
        str(folder if name.startswith("model/") else file), dtype=torch.float32
    ).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.write(b"\x00" * size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_path_that_cannot_be_is_an_error_of_the_user():
    with pytest.raises(UserError, match="cannot be read"):
        fingerprint(Path("/" + 300 * "a"))


# --- other things -----------------------------------------------------------------------------


def test_a_state_dict_alone_in_a_file_is_named(tmp_path, weights):
    torch.save(weights, tmp_path / "esm2.pt")
    message = refusal(tmp_path / "esm2.pt")
    assert "tensors alone (a state dict), such as esm." in message
    assert "save_pretrained" in message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            {"epoch": 1, "state_dict": {}},
            "a checkpoint of PyTorch Lightning, with epoch, state_dict",
        ),
        ({"args": 1, "model": {}}, "a checkpoint of an older ESM model, with args, model"),
        ({"step": 1, "net": {}}, "a dictionary with step, net"),
        ({}, "a dictionary with nothing"),
        ([1], "an object of the class list"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, what):
    torch.save(content, tmp_path / "esm2.pt")
    assert f"not a checkpoint of fair-esm or ESM C, but {what}" in refusal(tmp_path / "esm2.pt")


@pytest.mark.parametrize("content", [{"step": 1}, [1], {}])
def test_something_else_in_a_folder_is_named(folder, content):
    pickled(folder, content)
    assert "not tensors by their names, but" in refusal(folder)


def test_an_adapter_that_is_not_merged_is_named(folder, weights):
    in_one(folder, weights | {QUERY.replace("weight", "lora_A.default.weight"): torch.ones(2, 32)})
    assert "lora_A.default.weight is a tensor that this model does not have" in refusal(folder)
    assert "merge_and_unload" in refusal(folder)


def test_the_base_layers_of_an_adapter_are_named(folder, weights):
    wrapped = {f"base_model.{name}": tensor for name, tensor in weights.items()}
    in_one(folder, wrapped | {"base_model.lora_A.weight": torch.ones(2)})
    assert "merge_and_unload" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["esm.embeddings.layer_norm.weight", "esm.encoder.layer.1.output.extra.weight"],
)
def test_a_tensor_of_another_model_is_not_left_out(folder, weights, name):
    in_one(folder, weights | {name: torch.ones(32)})
    assert f"{name} is a tensor that this model does not have" in refusal(folder)


def test_the_positions_of_the_published_files_are_left_out(folder, weights):
    before = fingerprint(folder)
    name = "esm.embeddings.position_embeddings.weight"
    in_one(folder, weights | {name: torch.ones(1026, 32)})
    assert fingerprint(folder) == before


def test_quantised_weights_are_refused(folder, weights):
    in_one(folder, weights | {QUERY: weights[QUERY].to(torch.int8)})
    assert f"{QUERY} is torch.int8" in refusal(folder)


def test_a_tensor_of_another_shape_is_named(folder, weights):
    name = "esm.encoder.layer.1.intermediate.dense.weight"
    in_one(folder, weights | {name: weights[name][:5]})
    assert "encoder.layer.1.intermediate.dense.weight has the shape (5, 32)" in refusal(folder)


def test_a_query_that_is_not_finite_is_named(folder, weights):
    weights[QUERY][3, 5] = torch.nan
    in_one(folder, weights)
    assert "encoder.layer.0.attention.self.query.weight or" in refusal(folder)


@pytest.mark.parametrize(
    ("size", "value"),
    [
        ("encoder_layers", "2"),
        ("encoder_layers", 0),
        ("encoder_layers", 10**30),
        ("encoder_embed_dim", 10**9),
        ("encoder_embed_dim", None),
        ("encoder_attention_heads", -1),
        ("encoder_attention_heads", 3),
    ],
)
def test_a_fair_esm_checkpoint_of_odd_sizes_is_named(tmp_path, size, value):
    file = save_fair_esm(random_fair_esm(SPEC), tmp_path / "esm2_small.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(file, weights_only=True)
    setattr(data["cfg"]["model"], size, value)
    torch.save(data, file)
    assert "not a" in refusal(file)
