"""Checkpoints as published libraries write them, and the messages about bad ones."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import EsmConfig, EsmForMaskedLM, EsmModel

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.model_source import ModelSource
from common.model_specs import MODELS, ModelSpec
from tests.support.fair_esm import checkpoint_name, random_fair_esm, save_fair_esm, tokenize
from tests.support.hugging_face import published_name, to_hugging_face
from workers.models.esm2.model import ESM2
from workers.models.loading import LoadedModel, fingerprint_of, load_model, read_weights
from workers.models.random_weights import random_weights

SPEC = ModelSpec(name="esm2_small", layers=3, dim=64, heads=4)


@pytest.fixture(scope="module")
def oracle():
    return random_fair_esm(SPEC)


@pytest.fixture(scope="module")
def hugging_face(oracle) -> EsmForMaskedLM:
    return to_hugging_face(oracle)


@pytest.fixture
def fair_esm_file(oracle, tmp_path) -> Path:
    return save_fair_esm(oracle, tmp_path / "esm2_small.pt")


@pytest.fixture
def folder(hugging_face, tmp_path) -> Path:
    path = tmp_path / "esm2_small"
    hugging_face.save_pretrained(path)
    return path


def load(path: Path) -> LoadedModel:
    return load_model(str(path), dtype=torch.float32)


def assert_same_weights(one: LoadedModel, other: LoadedModel) -> None:
    one_state, other_state = one.model.state_dict(), other.model.state_dict()
    assert one_state.keys() == other_state.keys()
    assert all(torch.equal(one_state[name], other_state[name]) for name in one_state)
    assert one.fingerprint == other.fingerprint


def save_masked_lm(model: EsmForMaskedLM, path: Path) -> None:
    model.save_pretrained(path)


def save_without_head(model: EsmForMaskedLM, path: Path) -> None:
    encoder = EsmModel(model.config)
    encoder.load_state_dict(model.esm.state_dict(), strict=False)
    encoder.save_pretrained(path)


def save_sharded(model: EsmForMaskedLM, path: Path) -> None:
    model.save_pretrained(path, max_shard_size="200KB")
    assert len(list(path.glob("*.safetensors"))) > 1


def save_pickled(model: EsmForMaskedLM, path: Path) -> None:
    """Two files of pickled tensors, as the largest models have on the hub."""
    model.config.save_pretrained(path)
    weights = list(model.state_dict().items())
    for number, part in enumerate((weights[::2], weights[1::2]), start=1):
        torch.save(dict(part), path / f"pytorch_model-{number:05}-of-00002.bin")


def save_as_published(model: EsmForMaskedLM, path: Path) -> None:
    """Tensors under the hub's names, with frequencies in every layer."""
    model.config.save_pretrained(path)
    weights = {published_name(name): t for name, t in random_fair_esm(SPEC).state_dict().items()}
    weights.pop("lm_head.decoder.weight")  # shared with the embedding
    save_file(weights, path / "model.safetensors")


@pytest.mark.parametrize(
    "save",
    [save_masked_lm, save_without_head, save_sharded, save_pickled, save_as_published],
)
def test_both_formats_load_to_the_same_weights(fair_esm_file, hugging_face, tmp_path, save):
    path = tmp_path / "hugging_face"
    save(hugging_face, path)
    assert_same_weights(load(fair_esm_file), load(path))


def test_the_shape_is_read_from_the_checkpoint(fair_esm_file, folder):
    assert load(fair_esm_file).spec == load(folder).spec == SPEC


def test_a_file_in_the_old_pickle_format_of_torch_loads_too(fair_esm_file, tmp_path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(fair_esm_file, weights_only=True)
    old = tmp_path / "old.pt"
    torch.save(data, old, _use_new_zipfile_serialization=False)
    assert_same_weights(load(fair_esm_file), load(old))


def test_outputs_equal_transformers(hugging_face, folder):
    tokens = tokenize(["MKTAYIAK<mask>RQ", "GAV", "WYFC" * 30])
    real = tokens != 1
    theirs = hugging_face.esm(tokens, attention_mask=real.long(), output_hidden_states=True)
    ours = load(folder).model(tokens, real, range(SPEC.layers + 1))
    for layer, hidden in enumerate(theirs.hidden_states):
        assert (ours[layer] - hidden)[real].abs().max() <= 2e-5


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.01, None])
def test_the_eps_of_layer_norm_is_that_of_the_configuration(hugging_face, folder, eps):
    """None: missing, which is transformers' own default, not that of the published ESM-2."""
    edit_config(folder, layer_norm_eps=eps)
    # Where activations are small, eps matters most.
    edit_weights(
        folder, lambda weights: weights["esm.embeddings.word_embeddings.weight"].mul_(1e-3)
    )
    theirs = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokens = tokenize(["MKTAYIAKRQ", "GAV"])
    real = tokens != 1
    expected = theirs(tokens, attention_mask=real.long(), output_hidden_states=True).hidden_states
    ours = load(folder).model(tokens, real, range(SPEC.layers + 1))
    for layer, hidden in enumerate(expected):
        assert (ours[layer] - hidden)[real].abs().max() <= 2e-5


def test_another_eps_changes_the_fingerprint(folder):
    before = load(folder).fingerprint
    edit_config(folder, layer_norm_eps=1e-12)
    assert load(folder).fingerprint != before


def test_different_weights_have_different_fingerprints(fair_esm_file, tmp_path):
    other = save_fair_esm(random_fair_esm(SPEC, seed=1), tmp_path / "other.pt")
    assert load(other).fingerprint != load(fair_esm_file).fingerprint


@pytest.mark.parametrize("name", ["rotary.inv_freq", "blocks.2.qkv.bias", "embed_tokens.weight"])
def test_one_changed_tensor_changes_the_fingerprint(fair_esm_file, name):
    _, state, *_ = read_weights(ModelSource(str(fair_esm_file)))
    changed = state | {name: state[name] * 1.01}
    assert fingerprint_of(changed, {}) != fingerprint_of(state, {})


def test_another_vocabulary_changes_the_fingerprint():
    state = {"weight": torch.arange(6.0)}
    others = [{}, {"A": 0, "C": 1}, {"A": 1, "C": 0}, {"A": 0, "G": 1}]
    assert len({fingerprint_of(state, vocabulary) for vocabulary in others}) == 4
    assert fingerprint_of(state, {"C": 1, "A": 0}) == fingerprint_of(state, others[1])


def test_a_fingerprint_is_the_same_in_every_version_of_the_fleet():
    """Shards and validation records identify weights by the fingerprint."""
    state = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.linspace(0, 1, 9000)}
    assert fingerprint_of(state, {}) == "5d3e038efa273493"


def test_the_precision_of_serving_does_not_change_the_fingerprint(fair_esm_file):
    halved = load_model(str(fair_esm_file), dtype=torch.bfloat16)
    assert halved.fingerprint == load(fair_esm_file).fingerprint


def test_random_weights_are_the_same_every_time_and_give_finite_embeddings():
    name = "esm2_t6_8M_UR50D"
    one, other = (load_model(f"random:{name}", dtype=torch.float32) for _ in range(2))
    assert_same_weights(one, other)
    assert one.spec == MODELS[name]
    tokens = tokenize(["MKTAYIAKQR"])
    found = one.model(tokens, tokens != 1, range(one.spec.layers + 1))
    assert all(representation.isfinite().all() for representation in found.values())


def test_random_weights_of_another_seed_are_others():
    one, other = (random_weights(ESM2, SPEC, seed) for seed in (0, 1))
    assert fingerprint_of(one, {}) != fingerprint_of(other, {})


# --- what is refused --------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """Return the error's text, which must name the file or folder."""
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **settings) -> None:
    """Change settings of a folder's configuration; None removes one."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({k: value for k, value in config.items() if value is not None}))


def test_another_vocabulary_than_esm_2_has_is_refused(folder):
    tokens = list(ESM2_TOKENS)
    (folder / "vocab.txt").write_text("\n".join(tokens))
    load(folder)
    tokens[4:6] = tokens[5], tokens[4]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    assert "vocab.txt: other tokens" in refusal(folder)


def edit_weights(folder: Path, edit) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    edit(weights)
    save_file(weights, file)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.1.attention.self.key.weight",
        "encoder.layer.2.output.dense.bias",
        "embeddings.word_embeddings.weight",
        "encoder.emb_layer_norm_after.weight",
    ],
)
def test_a_missing_tensor_is_named_as_its_file_would(folder, name):
    edit_weights(folder, lambda weights: weights.pop(f"esm.{name}"))
    assert f"no tensor {name}" in refusal(folder)


def test_another_vocabulary_is_refused(folder):
    name = "esm.embeddings.word_embeddings.weight"
    edit_weights(folder, lambda weights: weights.update({name: torch.zeros(24, SPEC.dim)}))
    assert "vocabulary of 24 tokens" in refusal(folder)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("num_hidden_layers", 2, "2 layers"),
        ("num_hidden_layers", 4, "no tensor encoder.layer.3.attention.self.query.weight"),
        ("hidden_size", 128, "word_embeddings.weight has the shape (33, 64), but ESM-2"),
        ("num_attention_heads", 8, "rotary.inv_freq"),
        ("model_type", "bert", "bert"),
    ],
)
def test_weights_that_do_not_fit_their_configuration_are_refused(folder, setting, value, said):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    assert said in refusal(folder)


def test_an_esm1b_with_more_positions_is_refused(tmp_path):
    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        position_embedding_type="absolute",
        emb_layer_norm_before=True,
        token_dropout=True,
        max_position_embeddings=2050,
    )
    EsmForMaskedLM(config).save_pretrained(tmp_path / "esm1b")
    assert "max_position_embeddings is 2050, but ESM-1 has 1026" in refusal(tmp_path / "esm1b")


def test_layers_with_different_frequencies_are_refused(oracle, tmp_path):
    weights = {published_name(name): t for name, t in oracle.state_dict().items()}
    weights.pop("lm_head.decoder.weight")
    name = "esm.encoder.layer.1.attention.self.rotary_embeddings.inv_freq"
    weights[name] = weights[name] + 0.1
    to_hugging_face(oracle).config.save_pretrained(tmp_path / "odd")
    save_file(weights, tmp_path / "odd" / "model.safetensors")
    assert "different rotary frequencies" in refusal(tmp_path / "odd")


def test_a_truncated_safetensors_file_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert str(file) in refusal(folder)


def test_a_folder_without_configuration_is_refused(folder):
    (folder / "config.json").unlink()
    assert "no config.json" in refusal(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors or pytorch_model.bin. It has: config.json." in refusal(folder)


def test_a_path_where_nothing_lies_is_refused(tmp_path):
    assert "no such folder or file" in refusal(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    "content",
    [
        b">sp|P69905\nMVLS\n",
        b"PK\x03\x04 cut",
    ],
    ids=["FASTA", "cut zip"],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    file = tmp_path / "weights.pt"
    file.write_bytes(content)
    assert "not a checkpoint of fair-esm or ESM C" in refusal(file)


def test_a_truncated_fair_esm_file_is_refused(fair_esm_file):
    content = fair_esm_file.read_bytes()
    fair_esm_file.write_bytes(content[: len(content) // 2])
    assert "not a checkpoint of fair-esm or ESM C" in refusal(fair_esm_file)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    file = tmp_path / "other.pt"
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, file)
    assert "not a checkpoint of fair-esm or ESM C" in refusal(file)


def test_a_fair_esm_file_without_a_tensor_is_refused(fair_esm_file):
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(fair_esm_file, weights_only=True)
    del data["model"][checkpoint_name("layers.0.self_attn.v_proj.bias")]
    torch.save(data, fair_esm_file)
    assert "no tensor layers.0.self_attn.v_proj.bias" in refusal(fair_esm_file)


class Intruder:
    """An object that writes a file when it is unpickled unsafely."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, new_format):
    trace, file = tmp_path / "trace", tmp_path / "weights.pt"
    torch.save({"model": Intruder(trace)}, file, _use_new_zipfile_serialization=new_format)
    assert "opened safely" in refusal(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)
    assert trace.exists()  # it would have run


def test_code_in_a_pickle_of_a_folder_is_not_run(folder, tmp_path):
    trace = tmp_path / "trace"
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Intruder(trace)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin: not a readable weights file" in refusal(folder)
    assert not trace.exists()


def test_nobody_is_told_to_open_a_pickle_without_care(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"model": Intruder(tmp_path / "trace")}, file)
    message = refusal(file)
    assert "damaged, or contains more than weights" in message
    assert "weights_only" not in message


@pytest.fixture
def spoiled(tmp_path):
    """Write a checkpoint with a given value among its weights."""

    def save(value: float) -> Path:
        model = random_fair_esm(SPEC)
        model.layers[0].fc1.weight[3, 5] = value
        return save_fair_esm(model, tmp_path / "spoiled.pt")

    return save


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_that_are_not_finite_are_refused_in_every_precision(spoiled, value, dtype):
    with pytest.raises(UserError, match=r"layers\.0\.fc1\.weight contains NaN or Inf"):
        load_model(str(spoiled(value)), dtype=dtype)


@pytest.mark.parametrize("value", [65_521.0, -1e30])
def test_weights_that_fp16_cannot_hold_are_refused_in_fp16_alone(spoiled, value):
    path = spoiled(value)
    with pytest.raises(UserError, match=r"beyond 6\.55e\+04, the largest torch\.float16"):
        load_model(str(path), dtype=torch.float16)
    for dtype in (torch.bfloat16, torch.float32):
        load_model(str(path), dtype=dtype)
