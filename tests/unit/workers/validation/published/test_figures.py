"""The published figures: complete, of this project's tokens, and the same as their tensors."""

import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from benchmarks.published import NAMES
from common.model_specs import MODELS, ModelSpec
from tests.support.shared import shared_file
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.validation.published.figures import VECTORS, PublishedModel, read_published

PUBLISHED = read_published()
PROTEINS = len(PUBLISHED.sequences)

by_name = pytest.mark.parametrize("model", PUBLISHED.models, ids=lambda model: model.name)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_their_tokens_are_those_of_our_tokenizer():
    tokens = ESM2_TOKENIZER(PUBLISHED.sequences)
    ours = np.split(tokens.ids, tokens.cu_seqlens[1:-1])
    assert [each.tolist() for each in ours] == [list(each) for each in PUBLISHED.tokens]


@by_name
def test_every_model_has_finite_vectors_of_its_width_and_says_where_they_come_from(model):
    vectors = model.vectors(PROTEINS)
    assert np.isfinite(vectors).all()
    if model.name in MODELS:
        assert vectors.shape == (PROTEINS, len(VECTORS), MODELS[model.name].dim)
    assert re.fullmatch("[0-9a-f]{40}", model.revision)
    assert model.sha256
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in model.sha256.values())
    assert all(each.startswith("https://") for each in (PUBLISHED.source, *model.code))


@by_name
def test_the_tolerance_tells_one_protein_from_another(model):
    means = model.vectors(PROTEINS)[:, VECTORS.index("mean")]
    assert min(relative(a, b) for a, b in combinations(means, 2)) > 2 * model.tolerance


def test_a_model_is_known_by_its_shape_and_not_by_its_name():
    spec = MODELS["esm2_t12_35M_UR50D"]
    found = PUBLISHED.of(ModelSpec(name="mine", layers=12, dim=480, heads=20))
    assert found is PUBLISHED.of(spec)
    assert found is not None
    assert found.name == spec.name
    for other in ({"heads": 24}, {"layers": 11}, {"layer_norm_eps": 1e-6}):
        shape = {"layers": 12, "dim": 480, "heads": 20, **other}
        assert PUBLISHED.of(ModelSpec(name=spec.name, **shape)) is None


# --- the tensors that they come from ------------------------------------------------------------


def file_of(model: PublishedModel, kind: str) -> Path:
    [theirs] = [theirs for theirs, ours in NAMES.items() if ours == model.name]
    return shared_file("published_outputs", f"{theirs}.{kind}")


@by_name
def test_vectors_are_those_of_the_published_tensors(model):
    tensors = load_file(file_of(model, "safetensors"))
    hidden = tensors["output__last_hidden_state"].float().numpy()
    ids = tensors["input__input_ids"].numpy()
    for row, tokens in enumerate(PUBLISHED.tokens):
        assert ids[row, : len(tokens)].tolist() == list(tokens)
        mean, bos = model.vectors(PROTEINS)[row]
        np.testing.assert_allclose(mean, hidden[row, 1 : len(tokens) - 1].mean(0), atol=1e-5)
        np.testing.assert_array_equal(bos, hidden[row, 0])


@by_name
def test_the_checkpoint_is_the_one_that_their_description_names(model):
    checkpoint = json.loads(file_of(model, "json").read_text())["checkpoint"]
    assert (model.repository, model.revision) == (checkpoint["repo_id"], checkpoint["revision"])
    for file, sha256 in model.sha256.items():
        if file in checkpoint["files"]:
            assert checkpoint["files"][file] == f"sha256:{sha256}"
        else:
            assert file == f"{model.name}.pt"  # the authors' own file, which the hub's is made of
