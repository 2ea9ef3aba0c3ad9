"""Models: properties known without the weights."""

import json
import re
from dataclasses import replace

import pytest

from common.alphabet import DNA, PROTEIN
from common.errors import UserError
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, ESM1, ESM2, ESMC, MODELS, resolve_layers, swiglu_width

NAME = "esm2_t6_8M_UR50D"
DNA_NAME = "dnabert_s"
ESM2_NAMES = [name for name in MODELS if name.startswith("esm2")]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("esm2_t6_8M_UR50D", 8),
        ("esm2_t12_35M_UR50D", 35),
        ("esm2_t30_150M_UR50D", 150),
        ("esm2_t33_650M_UR50D", 650),
        ("esm2_t36_3B_UR50D", 3000),
        ("esm2_t48_15B_UR50D", 15000),
    ],
)
def test_a_model_has_about_the_weights_that_its_name_says(name, millions):
    spec = MODELS[name]
    assert spec.parameters == pytest.approx(millions * 1e6, rel=0.1)
    assert name.startswith(f"esm2_t{spec.layers}_")
    assert spec.dim % spec.heads == 0


@pytest.mark.parametrize("name", ESM2_NAMES)
def test_esm_2_is_for_proteins_and_cuts_at_what_it_was_trained_on(name):
    family = MODELS[name].family
    assert family is ESM2
    assert family.alphabet is PROTEIN
    assert (family.max_residues, family.windows) == (1022, False)


@pytest.mark.parametrize(
    ("name", "millions", "heads"),
    [("esmc_300m", 333, 15), ("esmc_600m", 575, 18), ("esmc_6b", 6300, 40)],
)
def test_esm_c_has_heads_of_64_and_its_published_size(name, millions, heads):
    spec = MODELS[name]
    assert (spec.family, spec.dim // spec.heads) == (ESMC, 64)
    assert (spec.heads, spec.family.max_residues, spec.family.longest) == (heads, 2046, None)
    assert spec.parameters == pytest.approx(millions * 1e6, rel=0.05)


def test_the_hidden_layers_of_esm_c_are_those_of_its_published_tensors():
    assert [swiglu_width(dim) for dim in (960, 1152, 2560)] == [2560, 3072, 6912]


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("esm1")])
def test_esm_1_has_positions_for_1024_tokens(name):
    spec = MODELS[name]
    assert (spec.family, spec.layers, spec.dim, spec.heads) == (ESM1, 33, 1280, 20)
    assert (spec.family.max_residues, spec.family.longest) == (1022, 1022)
    assert spec.embed_norm == name.startswith("esm1b")


def test_dnabert_2_is_the_base_of_dnabert_s():
    one, other = MODELS["dnabert_2"], MODELS[DNA_NAME]
    assert one.hub == "zhihan1996/DNABERT-2-117M"
    assert replace(one, name=other.name) == other  # in its shape


def test_dnabert_s_is_for_dna_and_takes_long_records_in_windows():
    spec = MODELS[DNA_NAME]
    assert (spec.layers, spec.dim, spec.heads) == (12, 768, 12)
    assert spec.family is DNABERT_S
    assert spec.family.alphabet is DNA
    assert (spec.family.max_residues, spec.family.windows) == (10_000, True)
    # A BERT base of 12 layers has 85 million in its blocks; the gated MLP adds a third of that.
    assert spec.parameters == pytest.approx(113e6, rel=0.01)


def test_nothing_is_known_of_a_folder_that_only_workers_have():
    assert ModelSource.parse("/nowhere/model").spec() is None


CONFIG = {
    "model_type": "esm",
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
}


def test_the_shape_of_a_folder_is_read_from_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    spec = ModelSource.parse(str(tmp_path)).spec()
    assert (spec.name, spec.layers, spec.dim, spec.heads) == (tmp_path.name, 4, 32, 2)
    assert spec.family is ESM2


def test_the_shape_of_a_folder_with_a_known_name_is_its_own(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    assert ModelSource.parse(str(folder)).spec() == MODELS[NAME]  # there is nothing better
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert ModelSource.parse(str(folder)).spec().layers == 4


@pytest.mark.parametrize(
    ("settings", "eps"),
    [
        ({"layer_norm_eps": 1e-5}, 1e-5),
        ({"layer_norm_eps": 0.01}, 0.01),
        ({}, 1e-12),  # the default of transformers
    ],
)
def test_the_eps_of_layer_norm_is_read(tmp_path, settings, eps):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | settings))
    spec = ModelSource.parse(str(tmp_path)).spec()
    assert spec.eps == eps
    assert spec.layer_norm_eps == (None if eps == ESM2.layer_norm_eps else eps)


def test_what_transformers_writes_for_an_esm_2_is_accepted(tmp_path):
    """Other defaults than ours are written in full, too."""
    settings = {"rope_theta": 10_000.0, "emb_layer_norm_before": None, "mask_token_id": 32}
    others = {"is_decoder": False, "is_folding_model": False, "vocab_list": None}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | settings | others))
    assert ModelSource.parse(str(tmp_path)).spec().layers == 4


DNA_CONFIG = {
    "model_type": "bert",
    "alibi_starting_size": 512,
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
}


ESM1_CONFIG = CONFIG | {"position_embedding_type": "absolute", "max_position_embeddings": 1026}


@pytest.mark.parametrize("embed_norm", [True, False, None])
def test_a_folder_with_learned_positions_is_esm_1(tmp_path, embed_norm):
    config = ESM1_CONFIG | {"emb_layer_norm_before": embed_norm}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = ModelSource.parse(str(tmp_path)).spec()
    assert (spec.family, spec.embed_norm) == (ESM1, bool(embed_norm))


#: As the hub has it; its authors' own files before had other names of the sizes.
ESMC_CONFIG = {
    "model_type": "esmc",
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}


@pytest.mark.parametrize(
    "config",
    [
        {**ESMC_CONFIG, "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"}},
        {"model_type": "esmc", "n_layers": 4, "d_model": 128, "n_heads": 2, "vocab_size": 64},
    ],
    ids=["transformers", "its authors"],
)
def test_a_folder_of_esm_c_is_read_in_both_formats(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = ModelSource.parse(str(tmp_path)).spec()
    assert (spec.family, spec.layers, spec.dim, spec.heads) == (ESMC, 4, 128, 2)
    assert spec.eps == 1e-5


@pytest.mark.parametrize("model_type", ["bert", None])
def test_a_folder_whose_config_has_alibi_s_size_is_dnabert_s(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps(DNA_CONFIG | {"model_type": model_type}))
    spec = ModelSource.parse(str(tmp_path)).spec()
    assert (spec.name, spec.layers, spec.dim, spec.heads) == (tmp_path.name, 4, 32, 2)
    assert spec.family is DNABERT_S


def test_a_plain_bert_is_refused_with_what_would_be_served(tmp_path):
    config = {key: value for key, value in DNA_CONFIG.items() if key != "alibi_starting_size"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        ModelSource.parse(str(tmp_path)).spec()
    assert str(caught.value) == (
        f"{tmp_path / 'config.json'}: model_type is 'bert', but only ESM-2, ESM-1b and ESM-1v "
        "('esm'), ESM C ('esmc'), and DNABERT-S and DNABERT-2 ('bert' with 'alibi_starting_size') "
        "can be served from a folder."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(CONFIG | {"model_type": "bert"}), "model_type is 'bert', but only ESM-2"),
        (json.dumps(CONFIG | {"position_embedding_type": "relative"}), "is 'relative', but ESM-2"),
        (json.dumps(ESM1_CONFIG | {"max_position_embeddings": 2050}), "is 2050, but ESM-1 has"),
        (json.dumps(ESM1_CONFIG | {"token_dropout": False}), "is False, but ESM-1 has True"),
        (json.dumps(ESMC_CONFIG | {"hidden_act": "gelu"}), "is 'gelu', but ESM C has 'silu'"),
        (json.dumps(ESMC_CONFIG | {"intermediate_size": 768}), "intermediate_size is 768, but"),
        (json.dumps(ESMC_CONFIG | {"attention_bias": True}), "is True, but ESM C has False"),
        (json.dumps(ESMC_CONFIG | {"qk_layernorm": False}), "is False, but ESM C has True"),
        (json.dumps(CONFIG | {"emb_layer_norm_before": True}), "is True, but ESM-2 has False"),
        (json.dumps({"model_type": "esm"}), "is None, but ESM-2 has"),
        (json.dumps(CONFIG | {"token_dropout": False}), "is False, but ESM-2 has True"),
        (json.dumps(CONFIG | {"hidden_act": "relu"}), "is 'relu', but ESM-2 has 'gelu'"),
        (json.dumps(CONFIG | {"rope_theta": 500_000.0}), "is 500000.0, but ESM-2 has 10000"),
        (json.dumps(CONFIG | {"rope_scaling": {"factor": 2}}), "rope_scaling is"),
        (json.dumps(CONFIG | {"mask_token_id": 5}), "mask_token_id is 5, but ESM-2 has 32"),
        (json.dumps(CONFIG | {"is_decoder": True}), "is_decoder is True"),
        (json.dumps(CONFIG | {"add_cross_attention": True}), "add_cross_attention is True"),
        (json.dumps(CONFIG | {"is_folding_model": True}), "is_folding_model is True"),
        (json.dumps(CONFIG | {"pruned_heads": {"0": [1]}}), "pruned_heads is"),
        (json.dumps(CONFIG | {"quantization_config": {"bits": 4}}), "quantization_config is"),
        (json.dumps(CONFIG | {"head_dim": 32}), "heads of another width"),
        (json.dumps(CONFIG | {"num_attention_heads": 5}), "heads of another width"),
        (json.dumps(CONFIG | {"num_attention_heads": "2"}), "num_attention_heads is '2'"),
        (json.dumps(CONFIG | {"hidden_size": 0}), "hidden_size is 0"),
        (json.dumps(CONFIG | {"hidden_size": 10**30}), "hidden_size is 1000"),
        (json.dumps(DNA_CONFIG | {"num_hidden_layers": -1}), "num_hidden_layers is -1"),
        (json.dumps(DNA_CONFIG | {"num_hidden_layers": 10**9}), "from 1 to 10,000"),
        (json.dumps(CONFIG | {"layer_norm_eps": "1e-5"}), "layer_norm_eps is '1e-5'"),
        (json.dumps(CONFIG | {"layer_norm_eps": None}), "layer_norm_eps is None"),
        (json.dumps(DNA_CONFIG | {"position_embedding_type": "relative_key"}), "DNABERT-S has"),
        (json.dumps(DNA_CONFIG | {"hidden_act": "gelu_new"}), "but DNABERT-S has 'gelu'"),
        (json.dumps(CONFIG).replace("hidden_size", "size"), "not a readable model configuration"),
        (json.dumps({"alibi_starting_size": 512}), "not a readable model configuration"),
        ('"alibi_starting_size"', "not a readable model configuration"),
        ("{", "not a readable model configuration"),
        ("[]", "not a readable model configuration"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        ModelSource.parse(str(tmp_path)).spec()
    assert str(tmp_path / "config.json") in str(caught.value)


# --- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "resolved"),
    [([-1], [6]), ([0], [0]), ([6], [6]), ([-7], [0]), ([3, -1, 0, -1], [3, 6, 0, 6]), ([], [])],
)
def test_negative_layers_are_counted_from_the_last(layers, resolved):
    assert resolve_layers(layers, 6) == resolved


@pytest.mark.parametrize("layer", [7, -8, 100])
def test_a_layer_that_a_model_does_not_have_is_refused(layer):
    message = f"Layer {layer}: this model has layers 0 to 6, or -1 to -7."
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_layers([0, layer], 6)
