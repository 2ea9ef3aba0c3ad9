"""The random inputs of a benchmark: lengths, sequences, batches and packs."""

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from common.job.output_form import OutputForm
from common.job.records import Record
from common.local.gpus import visible_gpus
from common.model_specs import MODELS
from common.rungs import Rung
from workers.bench.fleet import TRACE_FILE, Plan, environment_of, random_records, take_tokens
from workers.bench.proteins import SHORTEST, random_sequences, segment_lengths
from workers.bench.run import weights_for
from workers.cli.options import chosen_gpus
from workers.runtime.memory import GPU_PACK_TOKENS, fastest_pack_tokens

SPEC = MODELS["esm2_t6_8M_UR50D"]


@given(st.integers(100, 100_000), st.integers(100, 2002))
def test_segments_fill_a_pack_exactly_and_none_is_longer_than_a_record_may_be(tokens, longest):
    lengths = segment_lengths(tokens, longest)
    assert sum(lengths) == tokens
    assert max(lengths) <= longest
    assert min(lengths) >= min(tokens, SHORTEST + 2)


@pytest.mark.parametrize("alphabet", [PROTEIN, DNA], ids=lambda alphabet: alphabet.name)
def test_sequences_are_of_the_alphabet_and_as_long_as_proteins(alphabet):
    found = list(islice(random_sequences(alphabet, 1022), 2000))
    assert set("".join(found)) <= set(alphabet.letters)
    lengths = sorted(map(len, found))
    assert lengths[0] >= SHORTEST
    assert lengths[-1] == 1022
    assert 270 < lengths[1000] < 310


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """The first records of a benchmark: enough for 20,000 tokens, however short they are."""
    return list(islice(random_records(SPEC), 20_000 // SHORTEST))


@given(tokens=st.integers(1, 20_000))
def test_a_batch_has_the_tokens_asked_for_and_at_most_one_record_more(records, tokens):
    batch = list(take_tokens(iter(records), SPEC, tokens))
    counts = [SPEC.tokens(len(record.residues)) for record in batch]
    assert sum(counts) >= tokens > sum(counts[:-1])
    assert [record.row for record in batch] == list(range(len(batch)))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("esm2_t6_8M_UR50D", "random:esm2_t6_8M_UR50D"),
        ("facebook/ESM2_t6_8M_UR50D", "random:esm2_t6_8M_UR50D"),
        ("random:DNABERT-S", "random:dnabert_s"),
        ("/weights", "/weights"),
    ],
)
def test_any_spelling_of_a_name_is_measured_with_random_weights(model, text):
    assert weights_for(model).text == text


def test_packs_on_a_gpu_fill_it_and_small_models_get_larger_ones():
    tokens = {
        name: fastest_pack_tokens(spec, torch.device("cuda")) for name, spec in MODELS.items()
    }
    assert tokens["esm2_t36_3B_UR50D"] == tokens["esm2_t33_650M_UR50D"] == GPU_PACK_TOKENS
    assert tokens["esm2_t6_8M_UR50D"] > 4 * GPU_PACK_TOKENS


@pytest.mark.parametrize(("gpus", "seen"), [("0,1", ["0", "1"]), ("1", ["1"]), ("none", [])])
def test_workers_have_all_gpus_asked_for_though_the_model_alone_was_timed_on_one(
    monkeypatch, gpus, seen
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus.partition(",")[0])
    for name, value in environment_of(plan(gpus), None).items():
        monkeypatch.setenv(name, value)
    assert chosen_gpus(gpus) == visible_gpus() == seen


def test_only_workers_of_a_trace_write_one(tmp_path):
    assert environment_of(plan("0"), tmp_path / "t")[TRACE_FILE] == str(tmp_path / "t")
    assert TRACE_FILE not in environment_of(plan("0"), None)


def plan(gpus: str) -> Plan:
    spec = MODELS["esm2_t6_8M_UR50D"]
    return Plan(
        source=weights_for(spec.name),
        spec=spec,
        rung=Rung.FP16,
        form=OutputForm(max_residues=1022),
        batches=1,
        batch_tokens=1,
        gpus=gpus,
        gpu_memory=None,
    )
