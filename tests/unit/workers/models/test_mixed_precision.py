"""The rungs above FP16: dtypes, shared weights, and the overflows that each repairs."""

import pytest
import torch
from torch import nn

from common.rungs import Rung
from tests.support.overflow import DNA, PROTEIN, REPAIRED_BY, nowhere, overflow_the_scores
from workers.engine.engine import DTYPES, Engine, Outcome
from workers.models.attention.attention import Attention
from workers.models.attention.layouts import SeparateSegments, padded_layout
from workers.models.loading import load_model
from workers.models.mixed_precision import (
    MixedPrecisionAttention,
    MixedPrecisionLayerNorm,
    MixedPrecisionLinear,
    MixedPrecisionSoftmax,
    UpcastEmbedding,
    UpcastLinear,
    apply_fp32,
    apply_selective_fp32,
)

HALF_DTYPES = [torch.float16, torch.bfloat16]


# --- wrappers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALF_DTYPES)
@pytest.mark.parametrize("given", [*HALF_DTYPES, torch.float32])
def test_layer_norm_is_in_fp32_whatever_the_weights_and_the_input_are(dtype, given):
    norm = nn.LayerNorm(8).to(dtype)
    x = torch.randn(5, 8).to(given) * 100
    found = MixedPrecisionLayerNorm(norm)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, nn.LayerNorm(8)(x.float()))


def test_layer_norm_takes_what_fp16_cannot_hold():
    x = torch.tensor([[1e6, -1e6, 2e6, 0.0]])
    found = MixedPrecisionLayerNorm(nn.LayerNorm(4).half())(x)
    torch.testing.assert_close(found, nn.LayerNorm(4)(x))


@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
def test_layer_norm_of_what_is_not_finite_is_nan(amount):
    x = torch.ones(2, 8)
    x[1, 3] = amount
    found = MixedPrecisionLayerNorm(nn.LayerNorm(8))(x)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_softmax_is_in_fp32_and_given_in_the_dtype_asked_for(dtype):
    scores = torch.tensor([[1e5, 1e5 - 1.0, -1e5]])
    found = MixedPrecisionSoftmax()(scores, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), torch.softmax(scores, -1), atol=4e-3, rtol=0)


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_a_linear_layer_that_reads_the_stream_gives_half_precision(dtype):
    linear = nn.Linear(8, 3).to(dtype)
    x = torch.randn(2, 5, 8)
    found = MixedPrecisionLinear(linear, to_stream=False)(x)
    assert found.dtype == dtype
    assert torch.equal(found, linear(x.to(dtype)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_that_writes_to_the_stream_gives_its_fp32_sum(bias):
    linear = nn.Linear(4, 2, bias=bias).half()
    linear.weight.data.fill_(300.0)
    found = MixedPrecisionLinear(linear, to_stream=True)(torch.full((5, 4), 300.0).half())
    assert not torch.isfinite(linear(torch.full((5, 4), 300.0).half())).any()
    expected = 4 * 300.0 * 300.0 + (linear.bias.float() if bias else 0.0)
    torch.testing.assert_close(found, expected * torch.ones(5, 2))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_upcast_layers_compute_in_fp32_with_the_half_precision_weights(dtype):
    linear, embedding = nn.Linear(8, 3).to(dtype), nn.Embedding(4, 8).to(dtype)
    x = UpcastEmbedding(embedding)(torch.tensor([1, 2]))
    assert x.dtype == torch.float32
    found = UpcastLinear(linear)(x)
    assert found.dtype == torch.float32
    expected = x @ linear.weight.float().T + linear.bias.float()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("broken", ["q", "k"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_attention_with_an_infinite_query_or_key_is_nan(broken, layout):
    """All scores are then -Inf: as an infinite key's they would have a weight of 0."""
    given = {name: torch.rand(6, 2, 8).half() for name in ("q", "k", "v")}
    given[broken][4, 1, 3] = -torch.inf
    if layout == "packed":
        how = SeparateSegments([3, 3], None)
        found = MixedPrecisionAttention(Attention())(**given, layout=how)
    else:
        how = padded_layout(torch.ones(2, 3, dtype=torch.bool))
        given = {name: tensor.unflatten(0, (2, 3)) for name, tensor in given.items()}
        found = MixedPrecisionAttention(Attention())(**given, layout=how).flatten(0, 1)
    assert found[:3].isfinite().all()
    assert found[:, 0].isfinite().all()
    assert found[4, 1].isnan().all()
    assert found[3:, 1].isnan().all() == (broken == "k")


# --- views of a model ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[PROTEIN, DNA], ids=["ESM-2", "DNABERT-S"])
def checkpoint(request, tmp_path_factory):
    return request.param.save(nowhere, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def protein_checkpoint(tmp_path_factory):
    return PROTEIN.save(nowhere, tmp_path_factory.mktemp("weights"))


def make_engine(path, precision: Rung) -> Engine:
    return Engine(load_model(str(path), dtype=DTYPES[precision]))


VIEWS = [apply_selective_fp32, apply_fp32]

#: Ids of both vocabularies, as the arguments of ``forward_packed``.
PACK = torch.tensor([0, 20, 15, 11, 2]), torch.tensor([0, 5], dtype=torch.int32), 5


@pytest.mark.parametrize("apply", VIEWS)
def test_a_view_has_no_tensor_of_its_own(checkpoint, apply):
    model = load_model(str(checkpoint), dtype=torch.float16).model
    own = {tensor.data_ptr() for tensor in apply(model).state_dict().values()}
    assert own == {tensor.data_ptr() for tensor in model.state_dict().values()}


@pytest.mark.parametrize("apply", VIEWS)
def test_a_view_leaves_the_model_as_it_is(checkpoint, apply):
    model = load_model(str(checkpoint), dtype=torch.float16).model
    before = str(model)
    expected = model.forward_packed(*PACK, [2])[2]
    view = apply(model)
    found = view.forward_packed(*PACK, [0, 1, 2])
    assert {representation.dtype for representation in found.values()} == {torch.float32}
    assert str(model) == before
    assert {tensor.dtype for tensor in view.parameters()} == {torch.float16}
    assert torch.equal(model.forward_packed(*PACK, [2])[2], expected)


def stream_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """Return the outputs of the first block and of all its layers."""
    seen: dict[str, torch.dtype] = {}
    block = model.blocks[0]
    for name, module in [*block.named_children(), ("stream", block)]:
        module.register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, out.dtype)
        )
    model.forward_packed(*PACK, [1])
    return seen


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_selective_fp32_keeps_norms_and_stream_in_fp32_and_products_in_half(checkpoint, dtype):
    view = apply_selective_fp32(load_model(str(checkpoint), dtype=dtype).model)
    seen = stream_dtypes(view)
    seen.setdefault("attention", dtype)  # in DNABERT-S it is no layer
    full = torch.float32
    assert seen == {
        "attention_norm": full,
        "qkv": dtype,
        "attention": dtype,
        "out": full,
        "mlp_norm": full,
        "fc1": dtype,
        "fc2": full,
        "stream": full,
    }


def test_fp32_computes_everything_in_fp32(checkpoint):
    view = apply_fp32(load_model(str(checkpoint), dtype=torch.float16).model)
    assert set(stream_dtypes(view).values()) == {torch.float32}


# --- what each rung repairs ---------------------------------------------------------------------

RUNGS = [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32]

each_overflow = pytest.mark.parametrize(
    ("model", "overflow", "repaired_by"), REPAIRED_BY, ids=[f.__name__ for _, f, _ in REPAIRED_BY]
)


def overflowing(model, overflow, tmp_path) -> Engine:
    return make_engine(model.save(overflow, tmp_path), Rung.FP16)


def means(outcome: Outcome) -> torch.Tensor:
    return torch.from_numpy(outcome.embeddings.pooled["mean"])


@each_overflow
def test_an_overflow_is_repaired_by_the_rung_that_reaches_so_far(
    model, overflow, repaired_by, tmp_path
):
    engine = overflowing(model, overflow, tmp_path)
    for rung in RUNGS:
        outcome = engine.embed(model.records(model.bad), model.form, rung=rung)
        expected = [] if RUNGS.index(rung) >= RUNGS.index(repaired_by) else [4]
        assert [bad.row for bad in outcome.unstable] == expected, rung
        assert outcome.precision is rung


@each_overflow
def test_what_is_finite_is_what_fp32_gives(model, overflow, repaired_by, tmp_path):
    engine = overflowing(model, overflow, tmp_path)
    records, form = model.records(model.bad), model.form
    exact = means(engine.embed(records, form, rung=Rung.FP32))
    for rung in RUNGS:
        outcome = engine.embed(records, form, rung=rung)
        cosine = torch.cosine_similarity(means(outcome), exact[outcome.embeddings.rows])
        assert cosine.min() > 0.9999, rung


def rows_of(outcome: Outcome, row: int) -> list[bytes]:
    """Return all values of a row."""
    found = outcome.embeddings
    place = found.rows.tolist().index(row)
    numbers = [values[place] for values in found.pooled.values()]
    if found.residues is not None:
        end = int(found.lengths[: place + 1].sum())
        numbers.append(found.residues[end - int(found.lengths[place]) : end])
    return [values.tobytes() for values in numbers]


@each_overflow
def test_the_neighbours_of_an_unstable_row_are_bit_for_bit_what_they_are_without_it(
    model, overflow, repaired_by, tmp_path
):
    """The reference has a finite record of the same length in its place."""
    engine = overflowing(model, overflow, tmp_path)
    beside_bad = engine.embed(model.records(model.bad), model.form)
    beside_good = engine.embed(model.records(model.harmless), model.form)
    assert [bad.row for bad in beside_bad.unstable] == [4]
    assert beside_good.unstable == ()
    for row in (0, 1, 2, 3, 5, 6, 7, 8):
        assert rows_of(beside_bad, row) == rows_of(beside_good, row), row


@pytest.mark.parametrize("model", [PROTEIN, DNA], ids=["ESM-2", "DNABERT-S"])
def test_the_harmless_record_has_as_many_tokens(model, tmp_path):
    engine = overflowing(model, nowhere, tmp_path)
    bad, harmless = engine.loaded.tokenize([model.bad, model.harmless]).lengths
    assert bad == harmless


def test_scores_beyond_fp16_need_no_rung(tmp_path):
    """Kernels keep scores in FP32; a plain FP16 product would not have."""
    engine = overflowing(PROTEIN, overflow_the_scores, tmp_path)
    block, seen = engine.loaded.model.blocks[0], []
    block.attention.register_forward_hook(lambda _m, given, _out: seen.append(given[:2]))
    records, form = PROTEIN.records(PROTEIN.bad), PROTEIN.form
    fp16 = engine.embed(records, form)
    q, k = (t.transpose(0, 1) for t in seen[0])
    assert torch.isfinite(q).all()
    assert torch.isfinite(k).all()
    assert not torch.isfinite(q @ k.transpose(1, 2)).all()
    assert fp16.unstable == ()
    assert engine.embed(records, form, rung=Rung.SELECTIVE_FP32).unstable == ()


def test_what_no_rung_repairs_is_unstable_at_every_rung(protein_checkpoint):
    engine = make_engine(protein_checkpoint, Rung.FP16)
    engine.loaded.model.final_norm.bias[3] = torch.inf
    for rung in engine.models:
        outcome = engine.embed(PROTEIN.records(PROTEIN.bad), PROTEIN.form, rung=rung)
        assert len(outcome.unstable) == 9


def test_an_fp32_model_computes_every_rung_in_fp32(protein_checkpoint):
    engine = make_engine(protein_checkpoint, Rung.FP32)
    for rung in Rung:
        outcome = engine.embed(PROTEIN.records(PROTEIN.bad), PROTEIN.form, rung=rung)
        assert outcome.precision is Rung.FP32


def test_sums_are_fp32_and_tf32_is_off_whatever_the_process_has_set(protein_checkpoint):
    engine, seen = make_engine(protein_checkpoint, Rung.FP16), []
    records, form = PROTEIN.records(PROTEIN.bad), PROTEIN.form
    matmul = torch.backends.cuda.matmul

    def settings() -> tuple[str, bool, bool]:
        return (
            torch.get_float32_matmul_precision(),
            matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction,
        )

    before = settings()
    torch.set_float32_matmul_precision("medium")
    try:
        block = engine.models[Rung.FP32].blocks[0]
        block.register_forward_pre_hook(lambda *_: seen.append(settings()))
        engine.embed(records, form, rung=Rung.FP32)
        assert settings() == ("medium", *before[1:])
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert set(seen) == {("highest", False, False)}
