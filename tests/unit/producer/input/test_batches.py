"""Batches: every record once and in order, in the largest batches allowed."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.writer import pair_bytes, shard_bytes
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import DNABERT_S, ESM2, MODELS, ModelSpec
from producer.input.batches import (
    BATCHES_PER_WORKER,
    LARGEST_BATCH_TOKENS,
    SMALLEST_BATCH_TOKENS,
    Budget,
    batch_tokens,
    cut_batches,
)
from producer.input.identical import TOGETHER, without_originals
from tests.support.shards import embeddings_of, write_shard

MAX_RESIDUES = 40
DIM = 8
PROTEIN_MODEL = ModelSpec(name="small", layers=3, dim=DIM, heads=2)
DNA_MODEL = replace(PROTEIN_MODEL, name="small_dna", family=DNABERT_S)
FORM = OutputForm(include=("mean",), max_residues=MAX_RESIDUES)
WIDE_FORM = OutputForm(
    include=("mean", "bos", "per_residue"), layers=(-1, 3), max_residues=MAX_RESIDUES
)
WINDOWS = OutputForm(include=("mean", "bos"), max_residues=MAX_RESIDUES, overlap=4)

EVERYTHING_FITS = Budget(tokens=10**9, shard_bytes=10**12)

lengths = st.lists(st.integers(1, 2 * MAX_RESIDUES), max_size=60)
budgets = st.builds(Budget, tokens=st.integers(1, 300), shard_bytes=st.integers(1, 20_000))
SCORES = OutputForm(include=("mean", "logits", "entropy"), max_residues=MAX_RESIDUES)
MASKS = OutputForm(include=("mean", "pseudo_perplexity"), max_residues=MAX_RESIDUES)
CONTACTS = OutputForm(include=("mean", "contacts"), max_residues=MAX_RESIDUES)
forms = st.sampled_from([FORM, WIDE_FORM, WINDOWS, SCORES, MASKS, CONTACTS])
models = st.sampled_from([PROTEIN_MODEL, DNA_MODEL])
input_sizes = st.none() | st.integers(0, 10**12)
workers = st.integers(0, 1000)
specs = st.sampled_from(list(MODELS.values()))


def records_of(lengths: Sequence[int], header: str = "r") -> list[Record]:
    return [Record(row, header, "M" * length) for row, length in enumerate(lengths)]


def cut(
    records: list[Record],
    budget: Budget,
    form: OutputForm = FORM,
    spec: ModelSpec = PROTEIN_MODEL,
) -> list[list[Record]]:
    chunks = without_originals(records)
    return [batch.records for batch in cut_batches(chunks, budget, form, spec)]


def letters_of(batch: list[Record], form: OutputForm = FORM) -> int:
    return sum(form.embedded(len(record.residues)) for record in batch)


def tokens_of(batch: list[Record], form: OutputForm = FORM, spec: ModelSpec = PROTEIN_MODEL) -> int:
    lengths = [form.embedded(len(record.residues)) for record in batch]
    return sum(spec.tokens(length) * form.passes(length) for length in lengths)


@given(lengths, budgets, forms, models)
def test_batches_hold_every_record_once_and_in_order(lengths, budget, form, spec):
    records = records_of(lengths)
    batches = cut(records, budget, form, spec)
    assert [record for batch in batches for record in batch] == records
    assert all(batches)


@given(lengths, budgets, forms, models)
def test_a_batch_is_over_a_budget_only_if_it_is_a_single_record(lengths, budget, form, spec):
    per_record, per_residue = shard_bytes(form, DIM)
    for batch in cut(records_of(lengths), budget, form, spec):
        letters = letters_of(batch, form)
        pairs = sum(form.embedded(len(record.residues)) ** 2 for record in batch)
        stored = per_record * len(batch) + per_residue * letters + pair_bytes(form) * pairs
        within = tokens_of(batch, form, spec) <= budget.tokens and stored <= budget.shard_bytes
        assert within or len(batch) == 1


@given(lengths, budgets, forms, models)
def test_a_batch_ends_only_where_the_next_record_does_not_fit(lengths, budget, form, spec):
    for batch, following in pairwise(cut(records_of(lengths), budget, form, spec)):
        assert cut([*batch, following[0]], budget, form, spec) == [batch, [following[0]]]


@given(lengths, st.integers(1, 300), forms, models)
def test_a_batch_has_as_many_tokens_as_its_budget_allows(lengths, tokens, form, spec):
    batches = cut(records_of(lengths), Budget(tokens=tokens), form, spec)
    for batch, following in pairwise(batches):
        assert tokens_of([*batch, following[0]], form, spec) > tokens


@given(lengths, budgets, forms, models)
def test_the_size_of_a_batch_is_what_its_model_will_see(lengths, budget, form, spec):
    chunks = without_originals(records_of(lengths))
    for batch, _, size, _ in cut_batches(chunks, budget, form, spec):
        expected = (len(batch), letters_of(batch, form), tokens_of(batch, form, spec))
        assert (size.records, size.residues, size.tokens) == expected


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=20), specs)
def test_tokens_of_batches_are_those_that_the_model_s_shape_gives(lengths, spec):
    form = OutputForm(max_residues=spec.family.max_residues)
    records = records_of(lengths)
    ((_, _, size, _),) = cut_batches(without_originals(records), EVERYTHING_FITS, form, spec)
    assert size.tokens == sum(spec.tokens(form.embedded(length)) for length in lengths)


def test_where_residues_are_masked_a_batch_has_the_tokens_of_all_copies():
    chunks = without_originals(records_of([3, 5]))
    ((_, _, size, _),) = cut_batches(chunks, EVERYTHING_FITS, MASKS, PROTEIN_MODEL)
    assert (size.residues, size.tokens) == (8, 4 * 5 + 6 * 7)


def test_the_tokens_of_a_protein_are_its_residues_and_two_more():
    assert [PROTEIN_MODEL.tokens(letters) for letters in (0, 1, 40)] == [2, 3, 42]
    assert SPECIAL_TOKENS == 2
    assert ESM2.letters_per_token == 1


@given(st.integers(0, 10**6))
def test_the_tokens_of_dna_are_about_a_fifth_of_its_bases_and_never_fewer(letters):
    tokens = DNA_MODEL.tokens(letters) - SPECIAL_TOKENS
    assert DNABERT_S.letters_per_token == 5
    assert 0 <= 5 * tokens - letters < 5


def test_records_are_taken_as_they_are_needed():
    records = iter(records_of([10] * 3 * TOGETHER))
    next(cut_batches(without_originals(records), Budget(tokens=24), FORM, PROTEIN_MODEL))
    assert next(records).row == TOGETHER


# --- long records -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "letters"), [(FORM, MAX_RESIDUES), (WIDE_FORM, MAX_RESIDUES), (WINDOWS, 1000)]
)
def test_a_long_record_counts_as_far_as_it_is_kept_and_whole_in_windows(form, letters):
    records = records_of([1000])
    for spec in (PROTEIN_MODEL, DNA_MODEL):
        chunks = without_originals(records)
        ((batch, _, size, _),) = cut_batches(chunks, EVERYTHING_FITS, form, spec)
        assert batch == records
        assert (size.residues, size.tokens) == (letters, spec.tokens(letters))


@pytest.mark.parametrize("length", [0, 1, 39, 40, 41, 10**6])
def test_letters_that_are_embedded_are_cut_at_the_limit_unless_there_are_windows(length):
    assert FORM.embedded(length) == min(length, 40)
    assert WINDOWS.embedded(length) == length


@pytest.mark.parametrize("overlap", [0, 1, 39])
def test_windows_may_overlap_by_less_than_their_size(overlap):
    assert OutputForm(max_residues=40, overlap=overlap).overlap == overlap


@pytest.mark.parametrize("overlap", [-1, 40, 41])
def test_windows_that_would_not_move_on_are_refused(overlap):
    message = f"windows of 40 cannot overlap by {overlap}: give a smaller overlap"
    with pytest.raises(ValidationError, match=message):
        OutputForm(max_residues=40, overlap=overlap)


@pytest.mark.parametrize("name", ["per_residue", "logits", "entropy", "contacts"])
def test_what_residues_have_cannot_be_had_from_windows(name):
    with pytest.raises(ValidationError, match="set long to truncate or error"):
        OutputForm(include=("mean", name), max_residues=40, overlap=4)


# --- shards -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [FORM, WIDE_FORM, WINDOWS, SCORES, CONTACTS],
    ids=["mean", "everything", "windows", "scores", "contacts"],
)
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


def test_contacts_of_long_records_fill_batches():
    form = CONTACTS.model_copy(update={"max_residues": 1022})
    batches = cut(records_of([1022] * 10), Budget(tokens=10**9, shard_bytes=7 * 10**6), form)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]


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
