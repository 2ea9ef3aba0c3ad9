"""DNABERT-S against its published equations in FP64, and its checkpoints."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, MODELS, ModelSpec
from tests.support.dnabert import (
    EXPONENTS,
    bounds,
    packed,
    padded,
    random_checkpoint,
    random_tokens,
    reference,
    save_checkpoint,
    small_spec,
)
from workers.models.attention import flash
from workers.models.attention.alibi import QUERIES, Alibi, alibi_slopes, bias_table, biases_of
from workers.models.attention.attention import Attention
from workers.models.attention.choice import Kernel
from workers.models.attention.layouts import FlashSegments, SeparateSegments, padded_layout
from workers.models.dnabert_s.model import DNABERTS, VOCABULARY
from workers.models.loading import load_model, read_weights
from workers.models.mixed_precision import apply_fp32, apply_selective_fp32

#: The bound of every comparison in FP32.
CLOSE = 1e-5

SPECS = [small_spec(heads=12, dim=192), small_spec(heads=4, dim=128)]
SPEC = SPECS[0]

#: Lengths from [CLS] [SEP] alone to more than attention computes at once.
LENGTHS = [57, 2, QUERIES, 3, QUERIES + 41, 1]


def read(folder: Path) -> tuple[ModelSpec, dict[str, Tensor]]:
    spec, state, *_ = read_weights(ModelSource(str(folder)))
    return spec, state


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.name)
def spec(request):
    return request.param


@pytest.fixture(scope="module")
def weights(spec) -> dict[str, Tensor]:
    return random_checkpoint(spec)


@pytest.fixture(scope="module")
def model(spec, weights, tmp_path_factory) -> DNABERTS:
    folder = save_checkpoint(spec, weights, tmp_path_factory.mktemp("weights"))
    return load_model(str(folder), dtype=torch.float32).model


@pytest.fixture(scope="module")
def sequences() -> list[Tensor]:
    return random_tokens(LENGTHS)


@pytest.fixture(scope="module")
def expected(spec, weights, sequences) -> dict[int, Tensor]:
    """The reference's representations of all layers, ``{layer: [T, D]}`` FP64."""
    found = [reference(weights, one, spec.heads) for one in sequences]
    return {layer: torch.cat(parts) for layer, parts in enumerate(zip(*found, strict=True))}


def run_packed(model: DNABERTS, sequences: list[Tensor], layers: list[int]) -> dict[int, Tensor]:
    return model.forward_packed(*packed(sequences), layers)


def run_padded(model: DNABERTS, sequences: list[Tensor], layers: list[int]) -> dict[int, Tensor]:
    tokens, real = padded(sequences)
    return {layer: values[real] for layer, values in model(tokens, real, layers).items()}


def difference(found: dict[int, Tensor], expected: dict[int, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[layer] - expected[layer]).abs().max()) for layer in expected)


def every_layer(model: DNABERTS) -> list[int]:
    return list(range(model.spec.layers + 1))


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [run_padded, run_packed])
def test_every_representation_equals_the_published_equations(model, sequences, expected, run):
    assert difference(run(model, sequences, every_layer(model)), expected) <= CLOSE


@pytest.mark.parametrize("run", [run_padded, run_packed])
def test_another_eps_than_the_published_one_is_used(spec, weights, sequences, tmp_path, run):
    spec = replace(spec, layer_norm_eps=0.01)
    model = load_model(str(save_checkpoint(spec, weights, tmp_path)), dtype=torch.float32).model
    found = [reference(weights, one, spec.heads, eps=0.01) for one in sequences]
    expected = {layer: torch.cat(parts) for layer, parts in enumerate(zip(*found, strict=True))}
    assert difference(run(model, sequences, every_layer(model)), expected) <= CLOSE


@pytest.mark.parametrize("run", [run_padded, run_packed])
def test_a_plain_bert_without_alibi_gives_another_model(model, sequences, expected, run):
    plain = copy.deepcopy(model)
    plain.alibi.slopes.zero_()
    assert difference(run(plain, sequences, every_layer(model)), expected) > 10_000 * CLOSE


def test_embeddings_depend_on_the_order_of_tokens(model, sequences):
    last, order = model.spec.layers, torch.randperm(LENGTHS[0])
    found = run_packed(model, [sequences[0]], [last])[last][order]
    shuffled = run_packed(model, [sequences[0][order]], [last])[last]
    assert (found - shuffled).abs().max() > 0.1


def test_a_segment_does_not_depend_on_its_neighbours(model, sequences):
    last = model.spec.layers
    together = run_packed(model, sequences, [last])[last]
    alone = [run_packed(model, [one], [last])[last] for one in sequences]
    assert difference({last: together}, {last: torch.cat(alone)}) <= CLOSE


def test_a_segment_that_is_not_finite_leaves_its_neighbours_exactly_as_they_are(model):
    broken = copy.deepcopy(model)
    broken.embed_tokens.weight[7] = torch.inf
    sequences, last = [torch.tensor(ids) for ids in ([1, 9, 2], [1, 7, 2], [1, 8, 2])], 2
    found = run_packed(broken, sequences, [last])[last].unflatten(0, (3, 3))
    expected = run_packed(model, sequences, [last])[last].unflatten(0, (3, 3))
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert found[1].isnan().all()


def test_one_representation_alone_equals_the_same_from_a_full_run(model, sequences):
    full = run_packed(model, sequences, every_layer(model))
    for layer in every_layer(model):
        assert torch.equal(run_packed(model, sequences, [layer])[layer], full[layer])


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float16, 0.99999), (torch.bfloat16, 0.999)])
@pytest.mark.parametrize("run", [run_padded, run_packed])
def test_half_precision_is_close_to_the_published_equations(
    model, sequences, expected, run, dtype, floor
):
    last = model.spec.layers
    found = run(copy.deepcopy(model).to(dtype), sequences, [last])[last]
    assert found.dtype == dtype
    assert F.cosine_similarity(found.double(), expected[last], dim=-1).min() > floor


@pytest.mark.parametrize("run", [run_padded, run_packed])
@pytest.mark.parametrize("apply", [apply_selective_fp32, apply_fp32])
def test_the_rungs_above_fp16_are_close_to_the_published_equations(
    model, sequences, expected, run, apply
):
    last = model.spec.layers
    found = run(apply(copy.deepcopy(model).half()), sequences, [last])[last]
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found.double(), expected[last], dim=-1).min() > 0.99999


# --- slopes and biases ------------------------------------------------------------------------


def test_twelve_heads_have_the_published_slopes():
    torch.testing.assert_close(
        alibi_slopes(12).double(), torch.tensor([2.0**e for e in EXPONENTS]).double()
    )


@pytest.mark.parametrize("heads", [1, 2, 3, 7, 12, 16, 20, 40])
def test_there_is_one_slope_for_every_head_and_no_two_are_the_same(heads):
    slopes = alibi_slopes(heads)
    assert len(slopes.unique()) == heads
    assert slopes.min() > 0
    assert slopes.max() < 1


@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_casting_the_model_never_rounds_the_slopes(model, cast):
    rounded = cast(copy.deepcopy(model))
    assert rounded.embed_tokens.weight.dtype != torch.float32
    assert torch.equal(rounded.alibi.slopes, model.alibi.slopes)
    assert rounded.alibi.slopes.dtype == torch.float32


def test_slopes_follow_the_model_to_its_device():
    assert Alibi(12).to("meta", torch.float16).slopes.device.type == "meta"


@pytest.mark.parametrize("first", [0, QUERIES, 2 * QUERIES])
def test_biases_cut_from_the_table_are_those_of_the_distances(first):
    slopes, length = alibi_slopes(12), 3 * QUERIES - 5
    query, key = torch.arange(first, min(first + QUERIES, length)), torch.arange(length)
    biases = biases_of(bias_table(slopes, length), len(query), first, length)
    distance = (query[:, None] - key).abs()
    assert torch.equal(biases[0], -slopes[:, None, None] * distance)


# --- attention of what is not finite ----------------------------------------------------------


def infinite(broken: str, length: int) -> tuple[dict[str, Tensor], Tensor, int]:
    """Queries and keys ``[T, H, Dh]`` of two segments, all above 0 but one in the last, ``broken``:
    there a product with it is -Inf.
    """
    given = {name: torch.rand(10 + length, 4, 16).half() for name in ("q", "k", "v")}
    given[broken][10 + length // 2, 1, 3] = -torch.inf
    return given, bounds([10, length]), length


def assert_last_segment_is_nan(found: Tensor, broken: str, length: int) -> None:
    """Of the head that has it: at that query, or wherever that key is seen."""
    assert found[:10].isfinite().all()
    assert found[:, [0, 2, 3]].isfinite().all()
    seen = slice(10, None) if broken == "k" else 10 + length // 2
    assert found[seen, 1].isnan().all()
    assert broken == "k" or int(found.isnan().sum()) == 16


@pytest.mark.parametrize("broken", ["q", "k"])
@pytest.mark.parametrize("length", [5, 2 * QUERIES + 7])
def test_a_segment_with_an_infinite_query_or_key_is_nan(broken, length):
    """An infinite key would have a weight of 0, and be missing in a result that is finite."""
    given, cu_seqlens, longest = infinite(broken, length)
    layout = SeparateSegments(
        cu_seqlens.diff().tolist(), bias_table(alibi_slopes(4), max(longest, 10))
    )
    assert_last_segment_is_nan(Attention()(**given, layout=layout), broken, length)


@pytest.mark.parametrize("broken", ["q", "k"])
def test_a_padded_sequence_with_an_infinite_query_or_key_is_nan(broken):
    given, _, _ = infinite(broken, 10)
    given = {name: tensor.unflatten(0, (2, 10)) for name, tensor in given.items()}
    layout = padded_layout(torch.ones(2, 10, dtype=torch.bool), alibi_slopes(4))
    found = Attention()(**given, layout=layout).flatten(0, 1)
    assert_last_segment_is_nan(found, broken, 10)


@pytest.mark.parametrize("broken", ["q", "k"])
def test_flash_attn_is_given_nan_for_infinite_queries_and_keys(broken, monkeypatch):
    """It would give a key whose scores are -Inf a weight of 0."""
    seen = {}

    def kernel(q, k, v, *_, alibi_slopes):
        seen.update(q=q, k=k, v=v)
        return q

    monkeypatch.setattr(flash, "find_flash_attn", lambda: kernel)
    given, cu_seqlens, longest = infinite(broken, 5)
    slopes = alibi_slopes(4)
    Attention()(**given, layout=FlashSegments(Kernel.FLASH_ATTN, cu_seqlens, longest, slopes))
    for name, tensor in given.items():
        assert seen[name].dtype == torch.float16
        assert torch.equal(seen[name].isnan(), tensor.isinf())
        assert torch.equal(seen[name].nan_to_num(0), tensor.nan_to_num(0, 0, 0))


# --- checkpoints ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_checkpoint(SPEC, random_checkpoint(SPEC), tmp_path / "dnabert_s_12_heads")


def edit_weights(folder: Path, edit) -> None:
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file)


def assert_same_weights(one: Path, other: dict[str, Tensor]) -> None:
    _, state = read(one)
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


def with_prefix_and_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    head = {"cls.predictions.bias": torch.zeros(VOCABULARY)}
    return {f"bert.{name}": tensor for name, tensor in weights.items()} | head


def test_shape_and_names_are_those_of_the_model(folder):
    spec, state = read(folder)
    assert spec == SPEC
    assert spec.family is DNABERT_S
    assert state.keys() == DNABERTS(SPEC).state_dict().keys()


def test_a_prefix_and_a_head_change_nothing(folder):
    _, state = read(folder)
    edit_weights(folder, with_prefix_and_head)
    assert_same_weights(folder, state)


def test_pickled_weights_load_to_the_same(folder):
    _, state = read(folder)
    weights = with_prefix_and_head(load_file(folder / "model.safetensors"))
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same_weights(folder, state)


def test_the_first_token_type_is_part_of_every_word_in_fp32(folder):
    edit_weights(folder, lambda weights: {name: t.half() for name, t in weights.items()})
    weights = load_file(folder / "model.safetensors")
    words = weights["embeddings.word_embeddings.weight"]
    types = weights["embeddings.token_type_embeddings.weight"]
    _, state = read(folder)
    assert torch.equal(state["embed_tokens.weight"], words.float() + types[0].float())


def test_the_same_weights_with_another_vocabulary_have_another_fingerprint(folder):
    def fingerprint() -> str:
        return load_model(str(folder), dtype=torch.float32).fingerprint

    before, file = fingerprint(), folder / "tokenizer.json"
    assert fingerprint() == before
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["AC"], vocabulary["GT"] = vocabulary["GT"], vocabulary["AC"]
    file.write_text(json.dumps(content))
    assert fingerprint() != before


def refusal(folder: Path) -> str:
    """Return the error's text, which must name the folder."""
    with pytest.raises(UserError) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "encoder.layer.0.attention.self.Wqkv.bias",
        "encoder.layer.1.mlp.gated_layers.weight",
        "encoder.layer.1.mlp.layernorm.weight",
    ],
)
def test_a_missing_tensor_is_named_as_its_file_would(folder, name):
    edit_weights(folder, lambda weights: {n: t for n, t in weights.items() if n != name})
    assert f"no tensor {name}" in refusal(folder)


def test_weights_of_too_few_layers_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "no tensor encoder.layer.2.attention.self.Wqkv.weight" in refusal(folder)


def test_another_vocabulary_is_refused(folder):
    name = "embeddings.word_embeddings.weight"
    edit_weights(folder, lambda weights: weights | {name: torch.zeros(30522, 192)})
    assert "vocabulary of 30522 tokens" in refusal(folder)


def as_plain_bert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of published weights that were loaded into the wrong class and saved."""
    split = {}
    for name, tensor in weights.items():
        if "Wqkv" not in name:
            split[name] = tensor
            continue
        for part, values in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            split[name.replace("Wqkv", part)] = values.clone()
    return split


def with_positions(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {"embeddings.position_embeddings.weight": torch.zeros(512, 192)}


@pytest.mark.parametrize("edit", [as_plain_bert, with_positions])
def test_a_plain_bert_is_refused_by_name(folder, edit):
    edit_weights(folder, edit)
    assert "plain BERT" in refusal(folder)


def test_a_folder_without_weights_or_configuration_is_refused(folder):
    (folder / "config.json").unlink()
    assert "no config.json" in refusal(folder)


def test_the_published_model_has_the_shapes_of_its_checkpoint():
    with torch.device("meta"):
        state = DNABERTS(MODELS["dnabert_s"]).state_dict()
    assert state["embed_tokens.weight"].shape == (4096, 768)
    assert state["blocks.11.qkv.weight"].shape == (2304, 768)
    assert state["blocks.11.fc1.weight"].shape == (6144, 768)
    assert state["blocks.11.fc2.weight"].shape == (768, 3072)
    assert "blocks.11.fc1.bias" not in state
