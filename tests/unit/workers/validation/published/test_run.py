"""A checkpoint whose numbers were recorded by another implementation, as published ones are.

It has ESM-2 8M's shape and random weights. Its numbers are transformers', in padded batches with
products in BF16, the arithmetic of the published ones.
"""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import esm
import numpy as np
import pytest
import torch
from transformers import EsmForMaskedLM

from common.errors import UserError
from common.model_specs import MODELS
from tests.support.adapters import save_adapter
from tests.support.fair_esm import random_fair_esm, save_fair_esm, tokenize
from tests.support.hugging_face import to_hugging_face
from workers.validation import Request
from workers.validation.published.figures import Published, read_published
from workers.validation.published.judge import Installation, share_of_tolerance
from workers.validation.published.run import run
from workers.validation.sets import SEQUENCES_PER_SET

NAME = "esm2_t6_8M_UR50D"

Change = Callable[[esm.ESM2], None]


@pytest.fixture(scope="module")
def original() -> esm.ESM2:
    return random_fair_esm(MODELS[NAME])


@pytest.fixture(scope="module")
def folder(original: esm.ESM2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("published") / "esm2_8m"
    to_hugging_face(original).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def published(original: esm.ESM2, folder: Path) -> Published:
    """The figures of the checkpoint in the folder."""
    return recorded(to_hugging_face(original), folder / "model.safetensors")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change], Path]:
    """Write the same checkpoint with a change."""

    def save(change: Change) -> Path:
        model = random_fair_esm(MODELS[NAME])
        change(model)
        place = tmp_path_factory.mktemp("changed") / "esm2_8m"
        to_hugging_face(model).save_pretrained(place)
        return place

    return save


@torch.inference_mode()
def recorded(model: EsmForMaskedLM, file: Path) -> Published:
    """Return what is published, with the figures that transformers gives for one model."""
    known = read_published()
    tokens = tokenize(list(known.sequences))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.esm(tokens, attention_mask=tokens.ne(1).long()).last_hidden_state.float()
    lengths = map(len, known.sequences)
    mean = np.stack([hidden[row, 1 : 1 + n].mean(0) for row, n in enumerate(lengths)])
    [of_name] = [each for each in known.models if each.name == NAME]
    sha256 = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    vectors = {"mean": encoded(mean), "bos": encoded(hidden[:, 0].numpy())}
    entry = type(of_name).model_validate(of_name.model_dump() | vectors | {"sha256": sha256})
    return known.model_copy(update={"models": (entry,)})


def encoded(vectors: np.ndarray) -> bytes:
    return base64.b64encode(vectors.astype("<f4").tobytes())


def validated(place: Path | str, published: Published, weights: Path | None = None) -> Installation:
    request = Request(
        model=str(place),
        weights=weights,
        precision="bf16",
        device="cpu",
        sequences_per_set=SEQUENCES_PER_SET,
        picture=None,
        store=None,
    )
    return run(request, published)


def differences(found: Installation) -> list[float]:
    return [each.difference for each in found.comparisons if each.difference is not None]


# --- the same numbers ---------------------------------------------------------------------------


def test_the_published_checkpoint_passes_with_bf16s_rounding_and_room_to_spare(folder, published):
    found = validated(folder, published)
    assert found.passed
    assert [each.precision for each in found.comparisons] == ["fp32", "bf16"]
    assert (found.other_files, found.has_published_weights) == ((), True)
    assert (found.published, found.model) == (NAME, str(folder))
    # BF16 has 8 bits: no product of the reference is exact, and none is far off.
    assert min(differences(found)) > 2**-10
    assert max(map(share_of_tolerance, found.comparisons)) < 1 / 3


def test_weights_rounded_to_bf16_pass_as_another_file(changed, published):
    def rounded(model: esm.ESM2) -> None:
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())

    place = changed(rounded)
    found = validated(place, published)
    assert found.passed
    assert found.other_files == (str(place / "model.safetensors"),)
    assert found.has_published_weights


def test_a_file_of_fair_esm_is_compared_too_and_known_under_any_name(original, published, tmp_path):
    file = save_fair_esm(original, tmp_path / "renamed.pt")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = published.models[0].model_copy(update={"sha256": {f"{NAME}.pt": sha256}})
    found = validated(NAME, published.model_copy(update={"models": (entry,)}), weights=file)
    assert found.passed
    assert (found.model, found.weights, found.other_files) == (NAME, str(file), ())
    assert found.sha256 == {str(file): sha256}


def test_without_half_precision_fp32_is_compared_alone(folder, published, monkeypatch):
    monkeypatch.setenv("VIRNUCPRO_DISABLE_FP16", "1")
    found = validated(folder, published)
    assert [(each.precision, each.passed) for each in found.comparisons] == [("fp32", True)]


# --- other numbers ------------------------------------------------------------------------------


def swap_query_and_key(model: esm.ESM2) -> None:
    attention = model.layers[3].self_attn
    attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj
    attention.v_proj.weight.mul_(-1)


def perturb_one_layer(model: esm.ESM2) -> None:
    for weight in model.layers[2].parameters():
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        weight.add_(0.2 * weight.abs().mean() * noise)


def scale_embeddings(model: esm.ESM2) -> None:
    """Give what an implementation without the scaling of token dropout would."""
    model.embed_tokens.weight.div_(0.88)


@pytest.mark.parametrize("change", [swap_query_and_key, perturb_one_layer, scale_embeddings])
def test_a_change_of_one_layer_fails_in_all_precisions_and_names_the_file(
    changed, published, change
):
    place = changed(change)
    found = validated(place, published)
    assert not found.passed
    assert not any(each.passed for each in found.comparisons)
    assert min(map(share_of_tolerance, found.comparisons)) > 1.1
    assert found.other_files == (str(place / "model.safetensors"),)
    assert not found.has_published_weights


def test_the_published_file_with_other_numbers_is_the_installations_fault(folder, published):
    entry = published.models[0]
    spoiled = entry.model_copy(update={"mean": entry.bos})
    found = validated(folder, published.model_copy(update={"models": (spoiled,)}))
    assert not found.passed
    assert found.has_published_weights


# --- what cannot be compared --------------------------------------------------------------------


def test_random_weights_are_refused(published):
    with pytest.raises(UserError, match=f"random weights.*--model {NAME} or their folder"):
        validated(f"random:{NAME}", published)


@pytest.mark.parametrize("name", ["esm2_t48_15B_UR50D", "dnabert_s"])
def test_a_model_of_which_nothing_is_published_is_refused_before_it_is_loaded(name, published):
    with pytest.raises(UserError, match=rf"{name}: no numbers .* only for {NAME}\. Omit --publ"):
        validated(name, published)


def test_a_fair_esm_file_of_another_shape_is_refused(published, tiny):
    with pytest.raises(UserError, match=f"ESM-2 with 2 layers, width 64.*only for {NAME}"):
        validated(tiny, published)


def test_an_adapter_is_refused_with_the_name_of_its_base(published, folder, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", folder, r=2, target_modules=["query"])
    with pytest.raises(UserError, match=f"an adapter.*--model {folder} --published"):
        validated(adapter, published)


def test_other_tokens_are_named(folder, published):
    tokens = (published.tokens[0][::-1], *published.tokens[1:])
    with pytest.raises(UserError, match="its tokenizer gives other tokens"):
        validated(folder, published.model_copy(update={"tokens": tokens}))
