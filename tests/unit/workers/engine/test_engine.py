"""The engine: each record's embedding does not depend on the rest of its pack or batch."""

import random
import re
import threading
from itertools import accumulate

import numpy as np
import pytest
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import PRECISION_CODES, Rung
from common.wire.messages import NonFinite
from tests.support.fair_esm import ALPHABET, random_fair_esm, save_fair_esm, tokenize
from workers.engine.device import DeviceLostError, device_errors
from workers.engine.engine import DTYPES, SMALLEST_PACK_TOKENS, Engine, Outcome
from workers.engine.windows import windows
from workers.models.loading import load_model

SPEC = ModelSpec(name="esm2_small", layers=3, dim=64, heads=4)
LAST = SPEC.layers
EVERYTHING = OutputForm(
    include=("mean", "per_residue", "bos"), residue_dtype="float32", max_residues=1022
)

#: The rare letter for which the tests of instability change weights: pyrrolysine.
RARE = "O"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "esm2_small.pt"
    return save_fair_esm(random_fair_esm(SPEC), path)


@pytest.fixture
def make_engine(checkpoint):
    def make(precision: Rung = Rung.FP32, pack_tokens: int = 4096) -> Engine:
        engine = Engine(load_model(str(checkpoint), dtype=DTYPES[precision]))
        engine.pack_tokens = dict.fromkeys(engine.models, pack_tokens)
        return engine

    return make


@pytest.fixture
def engine(make_engine) -> Engine:
    return make_engine()


@pytest.fixture(scope="module")
def records() -> list[Record]:
    choose = random.Random(0)
    lengths = [1, 40, 300, 7, 2, 120, 1022, 64, 33, 500]
    return [
        Record(100 + row, f"id{row} protein", "".join(choose.choices("LAGVSERTIDPK", k=length)))
        for row, length in enumerate(lengths)
    ]


def hidden(engine: Engine, record: Record, layer: int = LAST) -> Tensor:
    """Return one record's padded forward pass ``[T, D]``, with <cls> and <eos>."""
    tokens = tokenize([record.residues])
    return engine.loaded.model(tokens, torch.ones_like(tokens, dtype=bool), [layer])[layer][0]


def assert_close(found, expected) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), atol=2e-5, rtol=0)


def assert_same_outcome(found: Outcome, expected: Outcome) -> None:
    one, other = found.embeddings, expected.embeddings
    assert one.rows.tolist() == other.rows.tolist()
    assert one.lengths.tolist() == other.lengths.tolist()
    assert_close(one.residues, other.residues)
    for name, values in other.pooled.items():
        assert_close(one.pooled[name], values)


def test_the_mean_is_over_residues_without_cls_and_eos(engine, records):
    found = engine.embed(records, EVERYTHING).embeddings.pooled["mean"]
    expected = [hidden(engine, record)[1:-1].mean(0) for record in records]
    assert_close(found, torch.stack(expected))


def test_bos_is_the_vector_at_cls(engine, records):
    found = engine.embed(records, EVERYTHING).embeddings.pooled["bos"]
    assert_close(found, torch.stack([hidden(engine, record)[0] for record in records]))


def test_max_and_std_are_those_of_the_residues(engine, records):
    form = EVERYTHING.model_copy(
        update={"include": ("std", "per_residue", "max"), "layers": (1, -1)}
    )
    found = engine.embed(records, form).embeddings
    assert set(found.pooled) == {"max", "std"}
    parts = np.split(found.residues, np.cumsum(found.lengths)[:-1])
    assert np.array_equal(found.pooled["max"], np.stack([part.max(0) for part in parts]))
    expected = np.stack([part.std(0, np.float64) for part in parts])
    np.testing.assert_allclose(found.pooled["std"], expected, atol=1e-5)


def test_in_fp16_std_is_that_of_the_vectors_in_fp32_arithmetic(make_engine, records):
    form = OutputForm(include=("std", "max"), max_residues=1022)
    half = make_engine(Rung.FP16).embed(records, form, rung=Rung.FP16).embeddings.pooled
    exact = make_engine().embed(records, form).embeddings.pooled
    for name in ("std", "max"):
        assert not np.array_equal(half[name], exact[name])
        np.testing.assert_allclose(half[name], exact[name], atol=2e-2)


def test_residues_lie_one_record_after_another_as_the_lengths_say(engine, records):
    found = engine.embed(records, EVERYTHING).embeddings
    parts = np.split(found.residues, np.cumsum(found.lengths)[:-1])
    for part, record in zip(parts, records, strict=True):
        assert_close(part, hidden(engine, record)[1:-1])


def test_rows_ids_headers_and_lengths_are_those_of_the_records(engine, records):
    outcome = engine.embed(records, EVERYTHING)
    found = outcome.embeddings
    assert found.rows.tolist() == [record.row for record in records]
    assert found.ids == [record.id for record in records]
    assert found.headers == [record.header for record in records]
    assert found.lengths.tolist() == [len(record.residues) for record in records]
    assert found.precision.tolist() == [PRECISION_CODES["fp32"]] * len(records)
    assert outcome.unstable == ()
    assert outcome.tokens == sum(len(record.residues) + 2 for record in records)


def test_only_what_was_asked_for_is_returned(engine, records):
    found = engine.embed(records, OutputForm(max_residues=1022)).embeddings
    assert set(found.pooled) == {"mean"}
    assert found.residues is None
    assert found.pooled["mean"].dtype == np.float32


@pytest.mark.parametrize("pack_tokens", [1, 100, 700, 100_000])
def test_the_size_of_packs_does_not_change_the_numbers(make_engine, records, pack_tokens):
    expected = make_engine().embed(records, EVERYTHING)
    assert_same_outcome(make_engine(pack_tokens=pack_tokens).embed(records, EVERYTHING), expected)


def test_several_layers_have_an_axis_of_their_own_in_the_order_asked_for(engine, records):
    layers = (-1, 0, 2)
    form = EVERYTHING.model_copy(update={"layers": layers})
    found = engine.embed(records, form).embeddings
    shape = (len(layers), SPEC.dim)
    assert found.pooled["mean"].shape == found.pooled["bos"].shape == (len(records), *shape)
    assert found.residues.shape == (found.lengths.sum(), *shape)
    for position, layer in enumerate((LAST, 0, 2)):
        expected = torch.stack([hidden(engine, record, layer)[1:-1].mean(0) for record in records])
        assert_close(found.pooled["mean"][:, position], expected)
        assert_close(found.residues[-500:, position], hidden(engine, records[-1], layer)[1:-1])


@pytest.mark.parametrize("layer", [LAST + 1, -LAST - 2])
def test_a_layer_that_the_model_does_not_have_is_refused(engine, records, layer):
    with pytest.raises(UserError, match=f"Layer {layer}: this model has layers 0 to {LAST}"):
        engine.embed(records, OutputForm(layers=(layer,), max_residues=1022))


def test_a_long_record_is_cut_and_both_lengths_are_kept(engine, records):
    found = engine.embed(records, EVERYTHING.model_copy(update={"max_residues": 50})).embeddings
    full = [len(record.residues) for record in records]
    assert found.input_lengths.tolist() == full
    assert found.lengths.tolist() == [min(length, 50) for length in full]
    cut = records[2]._replace(residues=records[2].residues[:50])
    assert_close(found.pooled["mean"][2], hidden(engine, cut)[1:-1].mean(0))


def test_pooled_vectors_are_float32_in_every_precision(make_engine, records):
    exact = make_engine().embed(records, EVERYTHING).embeddings
    found = make_engine(Rung.BF16).embed(records, EVERYTHING).embeddings
    assert found.pooled["mean"].dtype == np.float32
    assert found.precision.tolist() == [PRECISION_CODES["bf16"]] * len(records)
    cosine = torch.cosine_similarity(
        torch.from_numpy(found.pooled["mean"]), torch.from_numpy(exact.pooled["mean"])
    )
    assert cosine.min() > 0.99


def test_residues_are_stored_in_the_type_asked_for(engine, records):
    halved = engine.embed(records, EVERYTHING.model_copy(update={"residue_dtype": "float16"}))
    exact = engine.embed(records, EVERYTHING).embeddings
    assert halved.embeddings.residues.dtype == np.float16
    np.testing.assert_array_equal(halved.embeddings.residues, exact.residues.astype(np.float16))


# --- instability ------------------------------------------------------------------------------


def spoil_rare_letter(engine: Engine) -> None:
    engine.loaded.model.embed_tokens.weight[ALPHABET.get_idx(RARE)] = torch.inf


def with_rare_letter(records: list[Record], positions: set[int]) -> list[Record]:
    return [
        record._replace(residues=RARE + record.residues[1:]) if place in positions else record
        for place, record in enumerate(records)
    ]


@pytest.mark.parametrize("pack_tokens", [100, 100_000])
@pytest.mark.parametrize("positions", [{0}, {3, 4}, {2, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8}])
def test_only_unstable_records_are_left_out(make_engine, records, pack_tokens, positions):
    engine = make_engine(pack_tokens=pack_tokens)
    spoil_rare_letter(engine)
    good = [record for place, record in enumerate(records) if place not in positions]
    found = engine.embed(with_rare_letter(records, positions), EVERYTHING)
    assert_same_outcome(found, engine.embed(good, EVERYTHING))
    assert [bad.row for bad in found.unstable] == [100 + place for place in sorted(positions)]


def test_an_unstable_record_is_described(engine, records):
    spoil_rare_letter(engine)
    (bad,) = engine.embed(with_rare_letter(records, {5}), EVERYTHING).unstable
    assert (bad.row, bad.id, bad.length) == (105, "id5", 120)
    # The infinity makes its own LayerNorm NaN, and attention hands that to the whole segment.
    terms = (len(records[5].residues) + 2) * SPEC.dim
    assert bad.seen == {Rung.FP32: NonFinite(nan=terms, inf=0, finite_min=None, finite_max=None)}


def test_only_the_terms_that_are_not_finite_are_counted(engine, records):
    spoil_rare_letter(engine)
    form = OutputForm(layers=(0,), max_residues=1022)
    (bad,) = engine.embed(with_rare_letter(records, {5}), form).unstable
    seen = bad.seen[Rung.FP32]
    rest = torch.cat((hidden(engine, records[5], 0)[:1], hidden(engine, records[5], 0)[2:]))
    assert (seen.nan, seen.inf) == (0, SPEC.dim)
    assert seen.finite_min == pytest.approx(float(rest.min()))
    assert seen.finite_max == pytest.approx(float(rest.max()))


def test_a_batch_with_unstable_records_alone_has_no_rows(engine, records):
    spoil_rare_letter(engine)
    found = engine.embed(with_rare_letter(records, set(range(10))), EVERYTHING)
    assert len(found.embeddings) == 0
    assert found.embeddings.pooled["mean"].shape == found.embeddings.residues.shape == (0, SPEC.dim)
    assert len(found.unstable) == 10


def test_an_overflow_of_float16_is_found_and_float32_has_none(make_engine, records):
    """A residual stream of 0.88 · 60,000 and 20,000 more is over float16's 65,504."""
    spoiled = with_rare_letter(records, {1, 7})
    outcomes = {}
    for precision in (Rung.FP16, Rung.FP32):
        engine = make_engine(precision)
        engine.loaded.model.embed_tokens.weight[ALPHABET.get_idx(RARE), 0] = 60_000
        engine.loaded.model.blocks[0].out.bias[0] = 20_000
        outcomes[precision] = engine.embed(spoiled, EVERYTHING)
    assert outcomes[Rung.FP32].unstable == ()
    assert [bad.row for bad in outcomes[Rung.FP16].unstable] == [101, 107]
    kept = outcomes[Rung.FP16].embeddings
    expected = np.delete(outcomes[Rung.FP32].embeddings.pooled["mean"], [1, 7], axis=0)
    np.testing.assert_allclose(kept.pooled["mean"], expected, atol=0.05)


def test_a_sum_that_overflows_though_its_terms_do_not_is_unstable_too(engine, records):
    engine.loaded.model.embed_tokens.weight[ALPHABET.get_idx(RARE)] = 3e38
    spoiled = [records[1], records[3]._replace(residues=RARE * 7)]
    found = engine.embed(spoiled, OutputForm(layers=(0,), max_residues=1022))
    assert [bad.row for bad in found.unstable] == [103]
    assert found.embeddings.rows.tolist() == [101]


@pytest.mark.parametrize("positions", [set(), {9}])
def test_residues_too_large_for_their_type_are_refused(engine, records, positions):
    engine.loaded.model.final_norm.bias[0] = 1e5
    spoil_rare_letter(engine)
    form = EVERYTHING.model_copy(update={"residue_dtype": "float16"})
    with pytest.raises(UserError, match="residue_dtype float32"):
        engine.embed(with_rare_letter(records, positions), form)


def test_a_row_that_is_not_stored_may_be_too_large_for_its_type(engine, records):
    """Its other tokens are not finite: its neighbours are kept, and it is retried."""
    engine.loaded.model.embed_tokens.weight[ALPHABET.get_idx(RARE)] = 1e5
    engine.loaded.model.embed_tokens.weight[ALPHABET.get_idx("U"), 0] = torch.nan
    spoiled = list(records)
    spoiled[3] = records[3]._replace(residues=RARE + "U" + records[3].residues[2:])
    form = OutputForm(include=("per_residue",), layers=(0,), max_residues=1022)
    found = engine.embed(spoiled, form)
    assert [bad.row for bad in found.unstable] == [103]
    assert np.isfinite(found.embeddings.residues).all()


# --- memory and threads -----------------------------------------------------------------------


def out_of_memory_beyond(engine: Engine, tokens: int) -> list[int]:
    """Simulate a device with memory for ``tokens``; return the sizes of all packs."""
    given: list[int] = []

    def check(_module, arguments) -> None:
        given.append(len(arguments[0]))
        if given[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine.models[engine.precision].blocks[0].register_forward_pre_hook(check)
    return given


def test_packs_are_halved_until_they_fit(make_engine, records):
    engine = make_engine(pack_tokens=4096)
    expected = engine.embed(records, EVERYTHING)
    given = out_of_memory_beyond(engine, 1500)
    assert_same_outcome(engine.embed(records, EVERYTHING), expected)
    assert engine.pack_tokens[Rung.FP32] == SMALLEST_PACK_TOKENS
    assert [tokens > 1500 for tokens in given[:2]] == [True, True]
    assert max(given[2:]) <= 1024


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA error: an illegal memory access was encountered\nmore", DeviceLostError),
        ("Triton Error [CUDA]: an illegal memory access was encountered", DeviceLostError),
        ("CUDA error: out of memory", torch.OutOfMemoryError),
        ("Triton Error [CUDA]: out of memory", torch.OutOfMemoryError),
        ("The size of tensor a must match", RuntimeError),
    ],
)
def test_an_error_of_the_device_is_told_from_one_of_memory_and_from_all_others(message, expected):
    with (
        pytest.raises(expected, match=re.escape(message.splitlines()[0])) as caught,
        device_errors(),
    ):
        raise RuntimeError(message)
    assert caught.type is expected


def test_a_device_that_takes_not_even_the_smallest_pack_is_reported(make_engine, records):
    engine = make_engine(pack_tokens=4096)
    out_of_memory_beyond(engine, 0)
    with pytest.raises(torch.OutOfMemoryError):
        engine.embed(records, EVERYTHING)
    assert engine.pack_tokens[Rung.FP32] == SMALLEST_PACK_TOKENS


def test_a_record_too_large_for_the_device_is_reported_and_the_engine_goes_on(make_engine, records):
    """A segment alone in its pack gains nothing from smaller packs; no memory stays allocated."""
    engine = make_engine(pack_tokens=1024)
    large = Record(0, "large", "LAGV" * 300)
    form = OutputForm(max_residues=2000)
    given = out_of_memory_beyond(engine, 1100)
    for _ in range(3):  # one more than there are places for packs
        with pytest.raises(torch.OutOfMemoryError):
            engine.embed([large, *records], form)
    assert [tokens > 1100 for tokens in given] == [True] * 3
    assert len(engine.embed(records, form).embeddings) == len(records)


def test_each_pack_that_is_done_is_told_with_its_tokens_and_its_place(make_engine, records):
    engine, told = make_engine(pack_tokens=1500), []
    engine.embed(records, EVERYTHING, on_pack=told.append)
    assert len(told) > 2
    total = sum(len(record.residues) + SPECIAL_TOKENS for record in records)
    assert {(pack.room, pack.batch_tokens) for pack in told} == {(1500, total)}
    assert sum(pack.tokens for pack in told) == total
    assert [pack.batch_done for pack in told] == list(accumulate(pack.tokens for pack in told))
    assert all(pack.seconds > 0 for pack in told)


def test_a_batch_that_begins_again_tells_its_packs_again(make_engine, records):
    engine, told = make_engine(pack_tokens=4096), []
    out_of_memory_beyond(engine, 1500)
    engine.embed(records, EVERYTHING, on_pack=told.append)
    assert told[-1].batch_done == told[-1].batch_tokens
    assert sum(pack.tokens for pack in told) == told[-1].batch_tokens


def test_an_engine_names_the_kernel_of_its_attention(make_engine):
    assert make_engine().attention_kernel == "sdpa"


def test_what_is_raised_between_packs_ends_the_batch(make_engine, records):
    class StopError(Exception):
        pass

    calls = []

    def stop_at_third() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise StopError

    with pytest.raises(StopError):
        make_engine(pack_tokens=100).embed(records, EVERYTHING, between_packs=stop_at_third)
    assert len(calls) == 3


def test_threads_that_share_an_engine_get_their_own_numbers(make_engine, records):
    engine = make_engine(pack_tokens=600)
    shares = [records[:4], records[4:6], records[6:8], records[8:]]
    found: dict[int, Outcome] = {}

    def embed(place: int) -> None:
        found[place] = engine.embed(shares[place], EVERYTHING)

    threads = [threading.Thread(target=embed, args=[place]) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, share in enumerate(shares):
        assert_same_outcome(found[place], engine.embed(share, EVERYTHING))


# --- windows ----------------------------------------------------------------------------------

WINDOWS = OutputForm(include=("mean", "bos"), max_residues=100, overlap=20)


def test_a_long_record_is_the_mean_of_its_windows_by_their_tokens(engine, records):
    found = engine.embed(records, WINDOWS).embeddings
    assert found.lengths.tolist() == found.input_lengths.tolist()
    for place, record in enumerate(records):
        parts = [
            hidden(engine, record._replace(residues=record.residues[start:end]))
            for start, end in windows(len(record.residues), 100, 20)
        ]
        weights = torch.tensor([float(len(part)) for part in parts])[:, None]
        means = torch.stack([part[1:-1].mean(0) for part in parts])
        expected = (means * weights).sum(0) / weights.sum()
        assert_close(found.pooled["mean"][place], expected)


def test_of_windows_max_is_the_largest_and_std_is_around_the_mean_of_all(engine, records):
    form = WINDOWS.model_copy(update={"include": ("max", "std")})
    found = engine.embed(records, form).embeddings.pooled
    for place, record in enumerate(records):
        parts = [
            hidden(engine, record._replace(residues=record.residues[start:end]))[1:-1]
            for start, end in windows(len(record.residues), 100, 20)
        ]
        assert_close(found["max"][place], torch.cat(parts).max(0).values)
        weights = torch.cat([torch.full((len(p), 1), (len(p) + 2) / len(p)) for p in parts])
        mean = (torch.cat(parts) * weights).sum(0) / weights.sum()
        variance = ((torch.cat(parts) - mean).square() * weights).sum(0) / weights.sum()
        assert_close(found["std"][place], variance.sqrt())


def test_a_record_with_one_bad_window_is_unstable_and_its_neighbours_are_kept(engine, records):
    spoil_rare_letter(engine)
    (bad,) = engine.embed(with_rare_letter(records, {6}), WINDOWS).unstable
    assert (bad.row, bad.length) == (106, 1022)
    # The letter is in one window of a hundred residues.
    assert bad.seen[Rung.FP32].nan == 102 * SPEC.dim
    kept = engine.embed(with_rare_letter(records, {6}), WINDOWS).embeddings
    assert kept.rows.tolist() == [100 + place for place in range(10) if place != 6]


# --- the variable that wins over all ----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_variable_makes_a_notebook_compute_in_fp32_to_the_bit(
    checkpoint, records, monkeypatch, dtype
):
    exact = Engine(load_model(str(checkpoint), dtype=torch.float32)).embed(records, EVERYTHING)
    monkeypatch.setenv("VIRNUCPRO_DISABLE_FP16", "yes")
    found = Engine(load_model(str(checkpoint), dtype=dtype)).embed(
        records, EVERYTHING, rung=Rung.FP16
    )
    assert found.precision is Rung.FP32
    assert found.embeddings.pooled["mean"].tobytes() == exact.embeddings.pooled["mean"].tobytes()
    monkeypatch.delenv("VIRNUCPRO_DISABLE_FP16")
    half = Engine(load_model(str(checkpoint), dtype=dtype)).embed(records, EVERYTHING)
    assert (half.embeddings.pooled["mean"] != exact.embeddings.pooled["mean"]).mean() > 0.5
