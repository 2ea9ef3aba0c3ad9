"""ESM-1b and ESM-1v against fair-esm, in both formats of their weights."""

from dataclasses import replace

import esm
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.model_specs import MODELS, ModelSpec
from tests.support.esm1 import ESM1B, ESM1V, random_esm1, save_fair_esm1, to_hugging_face
from workers.models.esm2.model import MASK
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.loading import LoadedModel, load_model

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "M", "ACDEFGHIKLMNPQRSTVWYXBUZO.-" * 4, "GGSW"]

SPECS = pytest.mark.parametrize("spec", [ESM1B, ESM1V], ids=["ESM-1b", "ESM-1v"])

LAYERS = range(4)


@pytest.fixture
def oracle(spec) -> esm.ProteinBertModel:
    return random_esm1(spec)


@pytest.fixture
def loaded(oracle, tmp_path) -> LoadedModel:
    return load_model(save_fair_esm1(oracle, tmp_path / "esm1.pt"), dtype=torch.float32)


def packed(loaded: LoadedModel, parts: list[Tensor]) -> dict[int, tuple[Tensor, ...]]:
    """Return the representations ``[L, D]`` of each sequence of tokens from one pack, by layer."""
    lengths = [len(part) for part in parts]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    found = loaded.model.forward_packed(torch.cat(parts), cu_seqlens, max(lengths), LAYERS)
    return {layer: x.split(lengths) for layer, x in found.items()}


def tokens_of(sequence: str) -> Tensor:
    return torch.from_numpy(ESM2_TOKENIZER([sequence]).ids)


@SPECS
def test_every_layer_of_a_pack_is_that_of_fair_esm(spec, oracle, loaded):
    assert loaded.spec.embed_norm == spec.embed_norm
    parts = [tokens_of(sequence) for sequence in SEQUENCES]
    parts[2][5:9] = MASK  # which token dropout counts
    found = packed(loaded, parts)
    for n, part in enumerate(parts):
        expected = oracle(part[None], repr_layers=list(LAYERS))["representations"]
        for layer in LAYERS:
            assert (found[layer][n] - expected[layer][0]).abs().max() < 2e-5, (layer, n)


@SPECS
def test_a_padded_batch_gives_what_a_pack_gives(spec, loaded):
    parts = [tokens_of(sequence) for sequence in SEQUENCES]
    found = packed(loaded, parts)
    tokens = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=1)
    real = torch.nn.utils.rnn.pad_sequence([torch.ones(len(p)) for p in parts], batch_first=True)
    padded = loaded.model(tokens, real.bool(), LAYERS)
    for layer in LAYERS:
        for n, part in enumerate(parts):
            assert (padded[layer][n, : len(part)] - found[layer][n]).abs().max() < 1e-5


@SPECS
def test_a_folder_of_transformers_has_the_same_weights(spec, oracle, loaded, tmp_path):
    to_hugging_face(oracle, spec).save_pretrained(tmp_path / "folder")
    other = load_model(tmp_path / "folder", dtype=torch.float32)
    state = loaded.model.state_dict()
    assert other.model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[n]) for n, tensor in other.model.state_dict().items())
    assert (other.fingerprint, other.spec.embed_norm) == (loaded.fingerprint, spec.embed_norm)


@SPECS
def test_the_longest_sequence_is_embedded_and_a_longer_one_refused(spec, oracle, loaded):
    longest = tokens_of("ACDEFGHIKL" * 102 + "MN")
    assert len(longest) == 1024
    expected = oracle(longest[None], repr_layers=[3])["representations"][3][0]
    assert (packed(loaded, [longest])[3][0] - expected).abs().max() < 5e-5
    with pytest.raises(UserError, match="1023 residues: esm1 has positions for 1022"):
        packed(loaded, [tokens_of("A" * 1023)])


@SPECS
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_half_precision_is_near_full_precision(spec, loaded, tmp_path, dtype):
    half = load_model(tmp_path / "esm1.pt", dtype=dtype)
    parts = [tokens_of(sequence) for sequence in SEQUENCES]
    one, other = (packed(model, parts)[3] for model in (loaded, half))
    for a, b in zip(one, other, strict=True):
        assert torch.cosine_similarity(a.mean(0), b.float().mean(0), dim=0) > 0.999


def test_a_file_of_another_architecture_is_refused(tmp_path):
    spec: ModelSpec = ESM1B
    file = save_fair_esm1(random_esm1(spec), tmp_path / "esm1.pt")
    with torch.serialization.safe_globals([type(random_esm1(spec).args)]):
        data = torch.load(file, weights_only=True)
    data["args"].arch = "msa_transformer"
    torch.save(data, file)
    with pytest.raises(UserError, match="a checkpoint of an older ESM model, with args, model"):
        load_model(file, dtype=torch.float32)


@pytest.mark.parametrize("name", ["esm1b_t33_650M_UR50S", "esm1v_t33_650M_UR90S_3"])
def test_random_weights_have_the_published_shapes(name, monkeypatch):
    """Every layer has those of the first two, so that no more of them are drawn."""
    assert MODELS[name].layers == 33
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], layers=2))
    state = load_model(f"random:{name}", dtype=torch.float16).model.state_dict()
    assert state["embed_positions.weight"].shape == (1026, 1280)
    assert ("embed_norm.weight" in state) == ("1b" in name)
    assert len([key for key in state if key.endswith("qkv.weight")]) == 2
