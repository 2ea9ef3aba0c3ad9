"""The rungs above FP16: what dtype flows where, what is shared, and what each repairs."""

import pytest
import torch
from torch import nn

from common.batchfile import Record
from common.manifest import OutputForm
from common.modeltable import ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.overflow import (
    RARE,
    add_to_the_stream,
    add_too_much_at_once,
    overflow_a_hidden_unit,
    overflow_a_query,
    overflow_the_scores,
)
from workers.engine import Engine, Outcome
from workers.models.loading import load_model
from workers.models.mixed_precision import (
    MixedPrecisionLayerNorm,
    MixedPrecisionLinear,
    MixedPrecisionSoftmax,
    UpcastEmbedding,
    UpcastLinear,
    apply_fp32,
    apply_selective_fp32,
)

SPEC = ModelSpec(name="small", layers=2, dim=64, heads=4)
FORM = OutputForm(include=("mean", "bos", "per_residue"), residue_dtype="float32", max_residues=99)

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


# --- views of a model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_fair_esm(random_fair_esm(SPEC), tmp_path_factory.mktemp("weights") / "small.pt")


def make_engine(path, precision: Rung) -> Engine:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    return Engine(load_model(str(path), dtype=dtype))


VIEWS = [apply_selective_fp32, apply_fp32]


@pytest.mark.parametrize("apply", VIEWS)
def test_a_view_has_no_tensor_of_its_own(checkpoint, apply):
    model = load_model(str(checkpoint), dtype=torch.float16).model
    own = {tensor.data_ptr() for tensor in apply(model).state_dict().values()}
    assert own == {tensor.data_ptr() for tensor in model.state_dict().values()}


@pytest.mark.parametrize("apply", VIEWS)
def test_a_view_leaves_the_model_as_it_is(checkpoint, apply):
    model = load_model(str(checkpoint), dtype=torch.float16).model
    before = str(model)
    tokens = torch.tensor([0, 20, 15, 11, 2])
    expected = model.forward_packed(tokens, torch.tensor([0, 5], dtype=torch.int32), 5, [2])[2]
    view = apply(model)
    found = view.forward_packed(tokens, torch.tensor([0, 5], dtype=torch.int32), 5, [0, 1, 2])
    assert {representation.dtype for representation in found.values()} == {torch.float32}
    assert str(model) == before
    assert {tensor.dtype for tensor in view.parameters()} == {torch.float16}
    again = model.forward_packed(tokens, torch.tensor([0, 5], dtype=torch.int32), 5, [2])[2]
    assert torch.equal(again, expected)


def stream_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """What every layer of the first block gives, and the block itself."""
    seen: dict[str, torch.dtype] = {}
    block = model.blocks[0]
    for name, module in [*block.named_children(), ("stream", block)]:
        module.register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, out.dtype)
        )
    tokens = torch.tensor([0, 20, 15, 11, 2])
    model.forward_packed(tokens, torch.tensor([0, 5], dtype=torch.int32), 5, [1])
    return seen


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_selective_fp32_keeps_norms_and_stream_in_fp32_and_products_in_half(checkpoint, dtype):
    view = apply_selective_fp32(load_model(str(checkpoint), dtype=dtype).model)
    full = torch.float32
    assert stream_dtypes(view) == {
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

GOOD = ["MKTAYIAKQRQISFVKSHFSRQ", "GAVLIPFMW", "MDEEKLLSNQWERTYCCH", "M"]
BAD = "MKTAYIAKQRQISF" + RARE + "KSHFS"


def records(third: str) -> list[Record]:
    return [Record(row, f"p{row}", residues) for row, residues in enumerate([*GOOD, third, *GOOD])]


def overflowing(overflow, tmp_path) -> Engine:
    model = random_fair_esm(SPEC)
    overflow(model)
    return make_engine(save_fair_esm(model, tmp_path / "overflow.pt"), Rung.FP16)


REPAIRED_BY = [
    (add_to_the_stream, Rung.SELECTIVE_FP32),
    (add_too_much_at_once, Rung.SELECTIVE_FP32),
    (overflow_a_hidden_unit, Rung.FP32),
    (overflow_a_query, Rung.FP32),
]


@pytest.mark.parametrize(("overflow", "repaired_by"), REPAIRED_BY)
def test_an_overflow_is_repaired_by_the_rung_that_reaches_so_far(overflow, repaired_by, tmp_path):
    engine = overflowing(overflow, tmp_path)
    rungs = [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32]
    for rung in rungs:
        outcome = engine.embed(records(BAD), FORM, rung=rung)
        expected = [] if rungs.index(rung) >= rungs.index(repaired_by) else [4]
        assert [bad.row for bad in outcome.unstable] == expected, rung
        assert outcome.precision is rung


@pytest.mark.parametrize(("overflow", "repaired_by"), REPAIRED_BY)
def test_a_repaired_row_is_what_fp32_gives(overflow, repaired_by, tmp_path):
    engine = overflowing(overflow, tmp_path)
    repaired = engine.embed(records(BAD), FORM, rung=repaired_by).embeddings.pooled["mean"]
    exact = engine.embed(records(BAD), FORM, rung=Rung.FP32).embeddings.pooled["mean"]
    cosine = torch.cosine_similarity(torch.from_numpy(repaired), torch.from_numpy(exact))
    assert cosine.min() > 0.9999


def rows_of(outcome: Outcome, row: int) -> list:
    """All numbers of a row, as bytes."""
    found = outcome.embeddings
    place = found.rows.tolist().index(row)
    end = int(found.lengths[: place + 1].sum())
    residues = found.residues[end - int(found.lengths[place]) : end]
    return [values[place].tobytes() for values in found.pooled.values()] + [residues.tobytes()]


@pytest.mark.parametrize(("overflow", "_repaired_by"), REPAIRED_BY)
def test_the_neighbours_of_an_unstable_row_are_bit_for_bit_what_they_are_without_it(
    overflow, _repaired_by, tmp_path
):
    """Without it: with a harmless record of the same length in its place."""
    engine = overflowing(overflow, tmp_path)
    beside_bad = engine.embed(records(BAD), FORM)
    beside_good = engine.embed(records(BAD.replace(RARE, "V")), FORM)
    assert [bad.row for bad in beside_bad.unstable] == [4]
    assert beside_good.unstable == ()
    for row in (0, 1, 2, 3, 5, 6, 7, 8):
        assert rows_of(beside_bad, row) == rows_of(beside_good, row), row


def test_scores_beyond_fp16_need_no_rung(tmp_path):
    """Kernels keep scores in FP32; a plain FP16 product would not have."""
    engine = overflowing(overflow_the_scores, tmp_path)
    block, seen = engine.loaded.model.blocks[0], []
    block.attention.register_forward_hook(lambda _m, given, _out: seen.append(given[:2]))
    fp16 = engine.embed(records(BAD), FORM)
    q, k = (t.transpose(0, 1) for t in seen[0])
    assert torch.isfinite(q).all()
    assert torch.isfinite(k).all()
    assert not torch.isfinite(q @ k.transpose(1, 2)).all()
    assert fp16.unstable == ()
    assert engine.embed(records(BAD), FORM, rung=Rung.SELECTIVE_FP32).unstable == ()


def test_what_no_rung_repairs_is_unstable_at_every_rung(checkpoint):
    engine = make_engine(checkpoint, Rung.FP16)
    engine.loaded.model.final_norm.bias[3] = torch.inf
    for rung in engine.models:
        assert len(engine.embed(records(BAD), FORM, rung=rung).unstable) == 9


def test_an_fp32_model_computes_every_rung_in_fp32(checkpoint):
    engine = make_engine(checkpoint, Rung.FP32)
    for rung in Rung:
        assert engine.embed(records(BAD), FORM, rung=rung).precision is Rung.FP32


def test_sums_are_fp32_and_tf32_is_off_whatever_the_process_has_set(checkpoint):
    engine, seen = make_engine(checkpoint, Rung.FP16), []
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
        between = lambda: seen.append(settings())  # noqa: E731
        engine.embed(records(BAD), FORM, rung=Rung.FP32, between_packs=between)
        assert settings() == ("medium", *before[1:])
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert set(seen) == {("highest", False, False)}
