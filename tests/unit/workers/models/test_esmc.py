"""ESM C against transformers' model and its equations in FP64, in all formats of its weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from tests.support.esmc import (
    SPEC,
    exact_layers,
    random_esmc,
    save_engine_folder,
    save_folder,
    save_pth,
)
from workers.engine.engine import Engine
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.loading import LoadedModel, load_model

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "M", "ACDEFGHIKLMNPQRSTVWYXBUZO.-" * 4, "GGSW"]

LAYERS = range(SPEC.layers + 1)


@pytest.fixture(scope="module")
def oracle():
    return random_esmc()


@pytest.fixture(scope="module")
def folder(oracle, tmp_path_factory) -> Path:
    return save_folder(oracle, tmp_path_factory.mktemp("weights") / "esmc")


@pytest.fixture(scope="module")
def loaded(folder) -> LoadedModel:
    return load_model(folder, dtype=torch.float32)


def tokens_of(sequence: str) -> Tensor:
    return torch.from_numpy(ESM2_TOKENIZER([sequence]).ids)


def packed(loaded: LoadedModel, sequences: list[str]) -> dict[int, list[Tensor]]:
    """Return each sequence's representations ``[L, D]`` from one pack, by layer."""
    tokens = ESM2_TOKENIZER(sequences)
    found = loaded.model.forward_packed(
        torch.from_numpy(tokens.ids),
        torch.from_numpy(tokens.cu_seqlens),
        int(tokens.lengths.max()),
        LAYERS,
    )
    lengths = tokens.lengths.tolist()
    return {layer: list(x.split(lengths)) for layer, x in found.items()}


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_every_layer_is_that_of_the_published_equations(oracle, loaded, sequence):
    expected = exact_layers(oracle.state_dict(), SPEC, tokens_of(sequence))
    found = packed(loaded, [sequence])
    for layer in LAYERS:
        assert (found[layer][0] - expected[layer]).abs().max() < 2e-5, layer


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_every_layer_is_that_of_transformers(oracle, loaded, sequence):
    given = oracle.esmc(tokens_of(sequence)[None], output_hidden_states=True).hidden_states
    found = packed(loaded, [sequence])
    for layer in LAYERS:
        assert (found[layer][0] - given[layer][0]).abs().max() < 2e-5, layer


def test_a_pack_gives_what_each_sequence_gives_alone(loaded):
    """Its own users miss this: in its authors' code a padded batch gives other numbers."""
    together = packed(loaded, SEQUENCES)
    for n, sequence in enumerate(SEQUENCES):
        alone = packed(loaded, [sequence])
        for layer in LAYERS:
            assert (together[layer][n] - alone[layer][0]).abs().max() < 1e-5, (layer, n)


def test_a_padded_batch_gives_what_a_pack_gives(loaded):
    together = packed(loaded, SEQUENCES)
    ids = [tokens_of(sequence) for sequence in SEQUENCES]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
    real = torch.nn.utils.rnn.pad_sequence([torch.ones(len(i)) for i in ids], batch_first=True)
    padded = loaded.model(tokens, real.bool(), LAYERS)
    for layer in LAYERS:
        for n, one in enumerate(ids):
            assert (padded[layer][n, : len(one)] - together[layer][n]).abs().max() < 1e-5


@pytest.mark.parametrize("save", [save_pth, save_engine_folder], ids=["pth", "engine"])
def test_the_formats_of_its_authors_have_the_same_weights(oracle, loaded, save, tmp_path):
    other = load_model(save(oracle, tmp_path / "esmc.pth"), dtype=torch.float32)
    assert other.spec.heads == SPEC.heads
    state = loaded.model.state_dict()
    assert other.model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[n]) for n, tensor in other.model.state_dict().items())
    assert other.fingerprint == loaded.fingerprint


@pytest.mark.parametrize("rung", [Rung.BF16, Rung.SELECTIVE_FP32, Rung.FP32])
def test_every_rung_is_near_full_precision(folder, loaded, rung):
    half = load_model(folder, dtype=torch.bfloat16)
    records = [Record(n, str(n), sequence) for n, sequence in enumerate(SEQUENCES)]
    form = OutputForm(include=("mean", "bos", "per_residue"), max_residues=2046)
    found = Engine(half).embed(records, form, rung=rung)
    exact = Engine(loaded).embed(records, form)
    assert found.unstable == exact.unstable == ()
    for kind in ("mean", "bos"):
        one, other = (torch.from_numpy(o.embeddings.pooled[kind]) for o in (found, exact))
        assert torch.cosine_similarity(one, other).min() > (0.9999 if rung is Rung.FP32 else 0.999)
    assert found.embeddings.residues.shape == exact.embeddings.residues.shape


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("esmc.layers.1.mlp.up_proj.weight"), "no tensor layers.1.mlp.up_proj"),
        (lambda w: w.pop("esmc.norm.weight"), "no tensor norm.weight"),
        (
            lambda w: w.update({"esmc.layers.0.mlp.up_proj.bias": torch.zeros(512)}),
            "is a tensor too many",
        ),
        (
            lambda w: w.update({"esmc.layers.0.other.weight": torch.zeros(5)}),
            "is a tensor that this model does not have",
        ),
        (
            lambda w: w.update({"esmc.embed_tokens.weight": torch.zeros(33, 128)}),
            "a vocabulary of 33 tokens, unlike ESM C's 64",
        ),
    ],
)
def test_other_tensors_than_those_of_esm_c_are_refused(folder, tmp_path, change, said):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match=said):
        load_model(tmp_path, dtype=torch.float32)


def test_a_file_with_a_block_too_few_is_refused(oracle, tmp_path):
    file = save_pth(oracle, tmp_path / "esmc.pth")
    state = torch.load(file)
    torch.save({n: t for n, t in state.items() if ".blocks.1." not in n}, file)
    with pytest.raises(UserError, match="not a whole ESM C"):
        load_model(file, dtype=torch.float32)


def write_tokenizer(folder: Path, tokens: list[str]) -> None:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    text = json.dumps({"model": {"type": "BPE", "vocab": vocabulary}})
    (folder / "tokenizer.json").write_text(text)


def copied(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_its_own_tokenizer_is_accepted_and_another_model_s_refused(folder, tmp_path):
    place = copied(folder, tmp_path)
    own = ["|" if token == "<null_1>" else token for token in ESM2_TOKENS]
    write_tokenizer(place, own)
    assert load_model(place, dtype=torch.float32).tokenize is ESM2_TOKENIZER
    write_tokenizer(place, [*own[:4], *sorted(own[4:29]), *own[29:]])
    with pytest.raises(UserError, match="another model's tokenizer"):
        load_model(place, dtype=torch.float32)
    (place / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a readable tokenizer of ESM C"):
        load_model(place, dtype=torch.float32)


@pytest.mark.parametrize("name", ["random:esmc_300m"])
def test_random_weights_have_the_published_shapes(name):
    state = load_model(name, dtype=torch.float16).model.state_dict()
    assert state["blocks.29.qkv.weight"].shape == (2880, 960)
    assert state["blocks.0.fc1.weight"].shape == (5120, 960)
    assert state["final_norm.weight"].dtype == torch.float16
    assert state["rotary.inv_freq"].dtype == torch.float32
