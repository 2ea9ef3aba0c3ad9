"""The embedder of this process: its numbers against fair-esm, its errors, and what it imports."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import InputError, UserError
from common.rungs import Rung
from tests.support.fair_esm import ALPHABET, tokenize
from tests.support.fixtures import TINY
from workers.embedder import Embedder, embed
from workers.engine.device import DeviceLostError, find_device
from workers.engine.engine import Engine

SEQUENCES = {"P1": "MKTAYIAKQR", "P2": "MVLSPADKTN", "sp|P3|SHORT": "GA"}


@pytest.fixture(scope="module")
def embedder(tiny) -> Embedder:
    return Embedder(str(tiny), device="cpu")


def published(oracle, sequence: str, layer: int = TINY.layers) -> np.ndarray:
    """fair-esm's own vectors of residues ``[L, D]``."""
    with torch.inference_mode():
        found = oracle(tokenize([sequence]), repr_layers=[layer])["representations"][layer]
    return found[0, 1:-1].numpy()


def test_means_and_residues_are_those_of_fair_esm(embedder, oracle):
    result = embedder.embed(SEQUENCES, include=("mean", "per_residue", "bos"))
    assert result.ids == list(SEQUENCES)
    assert result.mean.shape == result.bos.shape == (3, TINY.dim)
    assert result.mean.dtype == np.float32
    assert result.precision == ["fp32"] * 3
    for id_, sequence in SEQUENCES.items():
        expected = published(oracle, sequence)
        np.testing.assert_allclose(result.residues(id_), expected, atol=2e-5)
        np.testing.assert_allclose(result[id_], expected.mean(0), atol=2e-5)


def test_the_exact_pseudo_perplexity_is_that_of_residues_masked_one_by_one(embedder, oracle):
    result = embedder.embed(SEQUENCES, include=("mean", "pseudo_perplexity"))
    for id_, sequence in SEQUENCES.items():
        tokens = tokenize([sequence])
        copies = tokens.repeat(len(sequence), 1)
        copies[:, 1:-1].fill_diagonal_(ALPHABET.mask_idx)
        with torch.inference_mode():
            logits = oracle(copies)["logits"][:, 1:-1].diagonal(dim1=0, dim2=1).T
        expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1:-1])
        found = np.log(result.pseudo_perplexity[result.ids.index(id_)])
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_scores_are_those_of_fair_esm_and_only_where_they_are_included(embedder, oracle):
    result = embedder.embed(SEQUENCES, include=("mean", "logits", "entropy"))
    for id_, sequence in SEQUENCES.items():
        with torch.inference_mode():
            expected = oracle(tokenize([sequence]))["logits"][0, 1:-1]
        np.testing.assert_allclose(result.logits(id_), expected, atol=2e-4)
        assert result.entropy(id_).shape == (len(sequence),)
    assert len(result.attributes["logits_tokens"]) == 33
    with pytest.raises(UserError, match="no pseudo_perplexity_unmasked: add it to include"):
        _ = result.pseudo_perplexity_unmasked
    with pytest.raises(UserError, match="have no logits: add it to include"):
        embedder.embed(SEQUENCES).logits("P1")
    with pytest.raises(UserError, match="no vectors or scores of their own"):
        embedder.embed(SEQUENCES, include="entropy", long="window")


def test_several_layers_have_an_axis_in_the_order_asked_for(embedder, oracle):
    result = embedder.embed(SEQUENCES, layers=(-1, 1))
    assert result.mean.shape == (3, 2, TINY.dim)
    expected = published(oracle, SEQUENCES["P2"], layer=1).mean(0)
    np.testing.assert_allclose(result["P2"][1], expected, atol=2e-5)


def test_a_list_a_dict_and_pairs_in_any_case_give_the_same_numbers(embedder, tiny):
    expected = embedder.embed(SEQUENCES).mean
    pairs = ((id_, sequence.lower() + "*") for id_, sequence in SEQUENCES.items())
    assert np.array_equal(embedder.embed(pairs).mean, expected)
    by_position = embedder.embed(list(SEQUENCES.values()))
    assert by_position.ids == ["0", "1", "2"]
    assert np.array_equal(by_position.mean, expected)
    vectors = embed(list(SEQUENCES.values()), model=str(tiny), device="cpu")
    assert np.array_equal(vectors, expected)


def test_embed_loads_a_model_once(tiny, monkeypatch):
    first = embed(["MKT"], model=str(tiny))
    monkeypatch.setattr("workers.embedder.load_model", None)
    assert np.array_equal(embed(["MKT"], model=str(tiny)), first)


def test_weights_may_be_named_by_a_path_object(tiny, embedder):
    assert Embedder(Path(tiny)).spec == embedder.spec


def test_no_sequences_give_no_rows(embedder):
    assert embedder.embed({}).to_pandas().shape == (0, TINY.dim)
    assert embedder.embed([]).mean.shape == (0, TINY.dim)


def test_an_unknown_id_is_a_key_error_that_names_near_ids(embedder):
    result = embedder.embed(SEQUENCES, include=("mean", "per_residue"))
    assert np.array_equal(result["P3"], result["sp|P3|SHORT"])
    with pytest.raises(KeyError, match=r"'P11'.*'P1'"):
        result["P11"]
    with pytest.raises(KeyError, match=r"'P11'.*'P1'"):
        result.residues("P11")


@pytest.mark.parametrize(
    ("sequence", "text"),
    [
        ("MK1T", "'1' at position 3, which is not one of the model's amino acids"),
        ("", "is empty"),
        ("*", "is empty"),
        ("-.-", "is empty"),
        ("M K\n1T", "'1' at position 3, which is not one of the model's amino acids"),
    ],
)
def test_a_sequence_that_cannot_be_embedded_is_named(embedder, sequence, text):
    with pytest.raises(InputError, match=r"Sequence 2 \('P9'\).*" + text) as caught:
        embedder.embed({"P1": "MKT", "P9": sequence})
    assert caught.value.record == 2


@pytest.mark.parametrize("written", ["mkt ayi\nak", "MKTAYIAK*", "MKTAYIAK.", "MKTAYIAK.*"])
def test_white_space_and_a_final_stop_are_dropped(embedder, written):
    expected = embedder.embed({"a": "MKTAYIAK"})
    assert np.array_equal(embedder.embed({"a": written})["a"], expected["a"])


def test_gaps_are_kept_with_a_warning_or_removed_or_an_error(embedder):
    gapped, plain = {"a": "MK--TAYI.AK"}, embedder.embed({"a": "MKTAYIAK"})
    with pytest.warns(UserWarning, match="1 sequence with gaps, embedded by tokens of gaps"):
        assert embedder.embed(gapped).lengths.tolist() == [11]
    assert np.array_equal(embedder.embed(gapped, gaps="strip")["a"], plain["a"])
    with pytest.raises(InputError, match="has '-' at position 3, which is a gap"):
        embedder.embed(gapped, gaps="error")
    with pytest.raises(UserError, match="gaps='drop': give"):
        embedder.embed(gapped, gaps="drop")


def test_dna_for_a_model_of_proteins_is_a_warning(embedder):
    dna = "ACGTRYacgtn-ACGTACGTACGTACGT"
    with pytest.warns(UserWarning, match="hardly any letters but A, C, G, T, U and N"):
        embedder.embed(["MKTAYIAKQR", dna, dna], gaps="strip")


def test_long_sequences_are_truncated_refused_or_windowed(embedder, oracle):
    sequence = "MKTAYIAKQRMVLSPADKTN"
    with pytest.warns(UserWarning, match=r"1 sequence longer than 10 residues: only the first 10"):
        truncated = embedder.embed({"P1": sequence}, max_residues=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder.embed({"P1": sequence}, max_residues=10, long="truncate")
    assert truncated.lengths.tolist() == [10]
    np.testing.assert_allclose(truncated["P1"], published(oracle, sequence[:10]).mean(0), atol=2e-5)
    windowed = embedder.embed({"P1": sequence}, max_residues=10, long="window")
    assert windowed.lengths.tolist() == [20]
    with pytest.raises(InputError, match="20 residues, more than the limit of 10") as caught:
        embedder.embed({"P1": sequence}, max_residues=10, long="error")
    assert caught.value.record == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": (9,)}, "Layer 9: this model has layers 0 to 2"),
        ({"include": ("median",)}, "include"),
        ({"include": ("per_residue",), "long": "window"}, "give long='truncate'"),
        ({"long": "cut"}, "long='cut': give 'error' or 'truncate' or 'window'"),
        ({"max_residues": 0}, "max_residues: Input should be greater than 0"),
        ({"max_residues": -1}, "max_residues: Input should be greater than 0"),
        ({"max_residues": "10", "long": "window"}, "max_residues='10': give a whole number"),
        ({"layers": "last"}, "layers: Input should be a valid integer"),
        ({"layers": ()}, "layers: .* is empty"),
        ({"include": None}, "include: Input should be 'mean'"),
    ],
)
def test_an_impossible_option_is_an_error_of_the_user(embedder, options, text):
    with pytest.raises(UserError, match=text):
        embedder.embed(SEQUENCES, **options)


def test_one_layer_and_one_kind_of_vector_need_no_list(embedder):
    expected = embedder.embed(SEQUENCES, include=("bos",), layers=(1,))
    found = embedder.embed(SEQUENCES, include="bos", layers=1)
    assert np.array_equal(found.bos, expected.bos)


def test_an_id_of_a_mapping_is_never_cut(embedder):
    result = embedder.embed({"my protein": "MKT", 7: "GA"})
    assert result.ids == ["my protein", "7"]
    assert np.array_equal(result["my protein"], result.mean[0])


@pytest.mark.parametrize("name", ["mps", "cuda:", "cuda:x", "CPU", None])
def test_a_device_that_is_not_known_is_an_error(tiny, name):
    with pytest.raises(UserError, match="give 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        Embedder(str(tiny), device=name)


def test_a_gpu_is_found_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"device='cuda:2': PyTorch finds 2 GPUs here"):
        find_device("cuda:2")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "too little free memory .*device="),
        (DeviceLostError("CUDA error: launch failure"), "can no longer use it: restart Python"),
    ],
)
def test_an_error_of_the_device_says_what_to_do(tiny, monkeypatch, error, text):
    embedder = Embedder(str(tiny))

    def embed(*_arguments, **_options):
        raise error

    monkeypatch.setattr(embedder._engine, "embed", embed)
    with pytest.raises(UserError, match=text):
        embedder.embed(["MKT"])


def test_weights_that_a_validation_found_unfit_are_refused(tiny, monkeypatch):
    monkeypatch.setattr("workers.validation.record.refusal", lambda *_arguments: "They must not.")
    with pytest.raises(UserError, match="They must not"):
        Embedder(str(tiny), precision="fp16")
    Embedder(str(tiny), precision="fp32")


def test_a_precision_that_is_not_known_is_an_error(tiny):
    with pytest.raises(UserError, match=r"precision='fp8': give 'auto' or "):
        Embedder(str(tiny), precision="fp8")


def test_an_id_that_two_sequences_have_is_told_apart_by_position(embedder):
    result = embedder.embed([("P1", "MKT"), ("P1", "GAVL")], include=("mean", "per_residue"))
    with pytest.raises(KeyError, match=r"positions\('P1'\) tells them apart"):
        result["P1"]
    assert result.positions("P1") == [0, 1]
    assert np.array_equal(result[1], result.mean[1])
    assert len(result.residues(1)) == 4
    assert result.attributes["model"] == result.model


def test_a_path_is_for_a_fleet(embedder):
    with pytest.raises(UserError, match=r"Fleet.submit\(path\)"):
        embedder.embed(Path("proteins.fasta"))


def test_one_text_is_not_taken_for_a_list_of_letters(embedder):
    with pytest.raises(UserError, match=r"pass \[sequence\]"):
        embedder.embed("MKT")


def test_vectors_that_were_not_included_are_an_error(embedder):
    result = embedder.embed(SEQUENCES)
    with pytest.raises(UserError, match="no bos: add it to include"):
        _ = result.bos
    with pytest.raises(UserError, match="no per_residue: add it to include"):
        result.residues("P1")


def test_a_closed_embedder_says_so(tiny):
    with Embedder(str(tiny)) as embedder:
        pass
    with pytest.raises(UserError, match="closed"):
        embedder.embed(["MKT"])


@pytest.fixture
def half(tiny) -> Embedder:
    """An FP16 model, whose ladder has three rungs."""
    return Embedder(str(tiny), precision="fp16")


def spoil(engine: Engine, monkeypatch, rungs: set[Rung]) -> None:
    """Let row 1 be NaN at some rungs."""
    embeddings_of = engine.models.copy()
    for rung in rungs:
        plain = embeddings_of[rung].forward_packed

        def forward_packed(ids, cu_seqlens, *rest, plain=plain):
            found = plain(ids, cu_seqlens, *rest)
            odd = (ids == 23).nonzero()  # C, in row 1 alone
            for hidden in found.values():
                hidden[odd] = torch.nan
            return found

        monkeypatch.setattr(embeddings_of[rung], "forward_packed", forward_packed)


def test_rows_that_are_not_finite_are_computed_at_the_next_rung(half, monkeypatch):
    spoil(half._engine, monkeypatch, {Rung.FP16})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = half.embed({"good": "MKTAY", "bad": "MKCAY"})
    assert result.precision == ["fp16", "selective_fp32"]
    assert np.isfinite(result.mean).all()


def test_rows_that_no_rung_can_embed_are_nan_with_a_warning(half, monkeypatch):
    spoil(half._engine, monkeypatch, set(half._engine.models))
    with pytest.warns(RuntimeWarning, match=r"bad.*Their vectors are NaN"):
        result = half.embed({"good": "MKTAY", "bad": "MKCAY"})
    assert result.precision == ["fp16", "none"]
    assert np.isfinite(result["good"]).all()
    assert np.isnan(result["bad"]).all()


def test_neither_redis_nor_celery_nor_a_store_is_imported():
    code = (
        "import sys, workers.embedder; print([name for name in sys.modules if name.split('.')[0] in"
        " {'redis', 'celery', 'kombu', 'boto3', 'botocore', 'producer'}"
        " or name.startswith(('common.store', 'common.ledger'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
