"""Batches: every record once and in order, as large as they may be and no larger."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import SPECIAL_TOKENS
from common.batchfile import Record
from common.manifest import OutputForm
from common.modeltable import MODELS
from common.shard import shard_bytes
from producer.batches import (
    BATCHES_PER_WORKER,
    LARGEST_BATCH_TOKENS,
    SMALLEST_BATCH_TOKENS,
    Budget,
    batch_tokens,
    cut_batches,
)
from tests.support.shards import embeddings_of, write_shard

MAX_RESIDUES = 40
DIM = 8
FORM = OutputForm(include=("mean",), max_residues=MAX_RESIDUES)
WIDE_FORM = OutputForm(
    include=("mean", "bos", "per_residue"), layers=(-1, 3), max_residues=MAX_RESIDUES
)

lengths = st.lists(st.integers(1, 2 * MAX_RESIDUES), max_size=60)
budgets = st.builds(Budget, tokens=st.integers(1, 300), shard_bytes=st.integers(1, 20_000))
forms = st.sampled_from([FORM, WIDE_FORM])
input_sizes = st.none() | st.integers(0, 10**12)
workers = st.integers(0, 1000)
specs = st.sampled_from(list(MODELS.values()))


def records_of(lengths: Sequence[int], header: str = "r") -> list[Record]:
    return [Record(row, header, "M" * length) for row, length in enumerate(lengths)]


def cut(records: list[Record], budget: Budget, form: OutputForm = FORM) -> list[list[Record]]:
    return [batch for batch, _ in cut_batches(records, budget, form, DIM)]


def tokens_of(batch: list[Record]) -> int:
    return sum(min(len(record.residues), MAX_RESIDUES) + SPECIAL_TOKENS for record in batch)


@given(lengths, budgets, forms)
def test_batches_hold_every_record_once_and_in_order(lengths, budget, form):
    records = records_of(lengths)
    batches = cut(records, budget, form)
    assert [record for batch in batches for record in batch] == records
    assert all(batches)


@given(lengths, budgets, forms)
def test_a_batch_is_over_a_budget_only_if_it_is_a_single_record(lengths, budget, form):
    per_record, per_residue = shard_bytes(form, DIM)
    for batch in cut(records_of(lengths), budget, form):
        residues = tokens_of(batch) - SPECIAL_TOKENS * len(batch)
        within = (
            tokens_of(batch) <= budget.tokens
            and per_record * len(batch) + per_residue * residues <= budget.shard_bytes
        )
        assert within or len(batch) == 1


@given(lengths, budgets, forms)
def test_a_batch_ends_only_where_the_next_record_does_not_fit(lengths, budget, form):
    for batch, following in pairwise(cut(records_of(lengths), budget, form)):
        assert cut([*batch, following[0]], budget, form) == [batch, [following[0]]]


@given(lengths, st.integers(1, 300))
def test_a_batch_has_as_many_tokens_as_its_budget_allows(lengths, tokens):
    for batch, following in pairwise(cut(records_of(lengths), Budget(tokens=tokens))):
        assert tokens_of([*batch, following[0]]) > tokens


@given(lengths, budgets)
def test_the_tokens_of_a_batch_are_those_that_its_model_will_see(lengths, budget):
    for batch, tokens in cut_batches(records_of(lengths), budget, FORM, DIM):
        assert tokens == tokens_of(batch)


def test_records_are_taken_as_they_are_needed():
    records = iter(records_of([10] * 100))
    next(cut_batches(records, Budget(tokens=24), FORM, DIM))
    assert next(records).row == 3


@pytest.mark.parametrize("form", [FORM, WIDE_FORM], ids=["mean", "everything"])
@pytest.mark.parametrize(
    "header", ["", "sp|P69905 Hemoglobin", "i" * 500, "i" * 2100, "é" * 200, "中" * 900]
)
def test_a_shard_is_no_larger_than_its_budget(tmp_path, form, header):
    budget = Budget(tokens=10**6, shard_bytes=400_000)
    batches = cut(records_of([3] * 4000, header), budget, form)
    assert len(batches) > 1
    path = tmp_path / "shard.h5"
    write_shard(path, form, DIM, embeddings_of(batches[0], form, DIM))
    assert path.stat().st_size <= budget.shard_bytes


# --- how large a batch is -----------------------------------------------------------------------


@given(specs, st.booleans(), workers, input_sizes)
def test_a_batch_has_never_too_few_tokens_nor_too_many(spec, on_gpu, workers, size):
    tokens = batch_tokens(spec, on_gpu=on_gpu, workers=workers, input_bytes=size)
    assert SMALLEST_BATCH_TOKENS <= tokens <= LARGEST_BATCH_TOKENS


@given(specs, st.booleans(), workers, st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_larger_input_never_has_smaller_batches(spec, on_gpu, workers, size, more):
    smaller, larger = (
        batch_tokens(spec, on_gpu=on_gpu, workers=workers, input_bytes=bytes_)
        for bytes_ in (size, size + more)
    )
    assert smaller <= larger <= batch_tokens(spec, on_gpu=on_gpu, workers=workers)


@given(st.booleans(), workers, input_sizes)
def test_a_larger_model_never_has_larger_batches(on_gpu, workers, size):
    by_size = sorted(MODELS.values(), key=lambda spec: spec.parameters)
    tokens = [
        batch_tokens(spec, on_gpu=on_gpu, workers=workers, input_bytes=size) for spec in by_size
    ]
    assert tokens == sorted(tokens, reverse=True)


@given(specs, st.booleans(), workers, workers, input_sizes)
def test_more_workers_never_have_larger_batches(spec, on_gpu, workers, more, size):
    few, many = (
        batch_tokens(spec, on_gpu=on_gpu, workers=count, input_bytes=size)
        for count in (workers, workers + more)
    )
    assert many <= few


@pytest.mark.parametrize("name", ["esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D"])
def test_a_cpu_has_smaller_batches_than_a_gpu(name):
    cpu, gpu = (batch_tokens(MODELS[name], on_gpu=on_gpu, workers=1) for on_gpu in (False, True))
    assert cpu < gpu


@given(specs, st.booleans(), st.integers(1, 64), st.integers(1, 10**4))
def test_a_small_input_gives_every_worker_work_to_the_end(spec, on_gpu, workers, scale):
    size = workers * BATCHES_PER_WORKER * SMALLEST_BATCH_TOKENS * scale
    tokens = batch_tokens(spec, on_gpu=on_gpu, workers=workers, input_bytes=size)
    assert size / tokens >= workers * BATCHES_PER_WORKER
