"""Identical records are found among all before them, and every one is found exactly."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.embeddings.writer import shard_bytes
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import MODELS
from producer.input import identical
from producer.input.batches import Budget, CutBatch, cut_batches
from producer.input.identical import OriginalFinder, hashes_with, with_originals

FORM = OutputForm(include=("mean", "per_residue"), max_residues=6)
SPEC = MODELS["esm2_t6_8M_UR50D"]

#: Few letters, so that many sequences are identical; rows with gaps between them.
sequences = st.lists(
    st.text("AC", min_size=1, max_size=3) | st.text("ACDEFG", max_size=9), max_size=80
)
steps = st.integers(1, 3)


def records_of(sequences: Sequence[str], step: int = 1) -> list[Record]:
    return [Record(step * n, f"h{n}", letters) for n, letters in enumerate(sequences)]


def first_rows(records: Iterable[Record]) -> list[int]:
    """Return the row of the first record with the letters of each, -1 for the first."""
    seen: dict[str, int] = {}
    return [-1 if (row := seen.setdefault(r.residues, r.row)) == r.row else row for r in records]


def found_in(records: list[Record], finder: OriginalFinder | None = None) -> list[int]:
    found: list[int] = []
    kept: list[Record] = []
    for chunk, originals in with_originals(records, finder):
        pairs = list(zip(chunk, originals, strict=False))
        kept += [record for record, _ in pairs]
        found += [original for _, original in pairs]
    assert kept == records
    return found


@given(sequences, steps, st.integers(1, 9))
def test_each_record_is_told_the_first_with_the_same_letters(sequences, step, together):
    records = records_of(sequences, step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identical, "TOGETHER", together)
        assert found_in(records, OriginalFinder(bits=4, step=7)) == first_rows(records)


def test_many_records_in_a_table_that_grows_into_a_file():
    draw = np.random.default_rng(0)
    sequences = [f"M{number}" for number in draw.integers(0, 20_000, 50_000).tolist()]
    records = records_of(sequences)
    finder = OriginalFinder(bits=4, step=1000)
    assert found_in(records, finder) == first_rows(records)
    assert isinstance(finder._log, np.memmap)
    assert (len(finder._log), len(finder._slots)) == (50_000, 1 << 16)


@pytest.mark.parametrize("limit", ["slots", "rows"])
def test_what_the_table_has_no_room_for_is_computed_again(monkeypatch, limit):
    monkeypatch.setattr(identical, "TOGETHER", 500)
    if limit == "rows":
        monkeypatch.setattr(identical, "MOST_ROWS", 2000)
    records = records_of([f"M{n}" for n in [*range(5000), *range(5000), 4999]])
    finder = OriginalFinder(bits=4, most_bits=12 if limit == "slots" else 20)
    assert found_in(records, finder) == [-1] * 5000 + [*range(2000)] + [-1] * 3001


def weak(first_bits: int, second_bits: int):
    """Return hashes with few bits, and with few places at the beginning of the table."""

    def hashes(sequences: Iterable[str]) -> np.ndarray:
        found = np.array(hashes_with(1)(sequences))
        found[:, 0] %= 1 << first_bits
        found[:, 1] %= 1 << second_bits
        return found

    return hashes


@given(sequences, st.integers(0, 3))
def test_records_whose_first_64_bits_collide_are_told_apart(sequences, first_bits):
    records = records_of(sequences)
    finder = OriginalFinder(weak(first_bits, 60), bits=3, step=5)
    assert found_in(records, finder) == first_rows(records)


def test_the_hashes_of_these_tests_are_weak():
    """Else the test above would show nothing: with all bits that few, records are confused."""
    records = records_of([f"M{n}" for n in range(50)])
    assert found_in(records, OriginalFinder(weak(1, 60), bits=3)) == first_rows(records)
    assert found_in(records, OriginalFinder(weak(1, 1), bits=3)) != first_rows(records)


def test_hashes_are_of_the_letters_and_the_seed():
    one, again, other = (hashes_with(seed)(["MKV", "MKA", ""]) for seed in (7, 7, 8))
    assert np.array_equal(one, again)
    assert len({*one.ravel().tolist(), *other.ravel().tolist()}) == 12


def test_a_table_without_room_is_an_error_that_says_what_to_do(monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(identical, "reserve", full)
    with pytest.raises(UserError, match=r"no room for the .* TMPDIR .* or switch dedup off"):
        found_in(records_of([f"M{n}" for n in range(100)]), OriginalFinder(bits=3, step=9))


@pytest.mark.parametrize("can_reserve", [True, False])
def test_a_file_gets_all_of_its_space_at_once(tmp_path, monkeypatch, can_reserve):
    if not can_reserve:  # as on macOS
        monkeypatch.delattr(identical.os, "posix_fallocate")
    monkeypatch.setattr(identical, "ZEROS", 1000)
    with (tmp_path / "table").open("w+b") as file:
        identical.reserve(file, 0, 4_200)
        identical.reserve(file, 4_200, 10_500)
    status = (tmp_path / "table").stat()
    assert (status.st_size, status.st_blocks * 512 >= 10_500) == (10_500, True)


# --- batches ------------------------------------------------------------------------------------

budgets = st.builds(Budget, tokens=st.integers(1, 100), shard_bytes=st.integers(1, 60_000))


def whole(batch: CutBatch) -> list[tuple[int, str]]:
    rows = [(record.row, record.header) for record in batch.records]
    return sorted(rows + [(copy.row, copy.header) for copy in batch.copies])


@given(sequences, steps, budgets)
@settings(max_examples=200)
def test_batches_and_their_copies_are_the_input(sequences, step, budget):
    records = records_of(sequences, step)
    batches = list(cut_batches(with_originals(records), budget, FORM, SPEC))
    assert [pair for b in batches for pair in whole(b)] == [(r.row, r.header) for r in records]
    letters = {record.row: record.residues for record in records}
    computed = {record.row for batch in batches for record in batch.records}
    for batch in batches:
        assert whole(batch)[0][0] == batch.records[0].row
        for copy in batch.copies:
            assert copy.original in computed
            assert copy.original < copy.row
            assert letters[copy.original] == letters[copy.row]
            assert copy.length == len(letters[copy.row])
    # Only the first of a batch is computed once more.
    again = len(computed) - len(set(letters.values()))
    assert again <= max(0, len(batches) - 1)


@given(sequences, budgets)
def test_the_size_of_a_batch_counts_what_is_computed_and_all_that_is_written(sequences, budget):
    records = records_of([letters or "M" for letters in sequences])
    per_record, per_residue = shard_bytes(FORM, SPEC.dim)
    for batch in cut_batches(with_originals(records), budget, FORM, SPEC):
        size = batch.size
        lengths = [len(r.residues) for r in batch.records]
        rows = len(whole(batch))
        residues = sum(map(FORM.embedded, lengths + [copy.length for copy in batch.copies]))
        assert (size.records, size.copies, size.rows) == (len(lengths), len(batch.copies), rows)
        assert size.residues == residues
        assert size.tokens == sum(SPEC.tokens(FORM.embedded(length)) for length in lengths)
        stored = per_record * rows + per_residue * residues
        within = size.tokens <= budget.tokens and stored <= budget.shard_bytes
        assert within or rows == 1 or (len(lengths) == 1 and stored <= budget.shard_bytes)


def test_copies_alone_end_a_batch_too():
    records = records_of(["MKVLGA"] * 1000)
    per_record, per_residue = shard_bytes(FORM, SPEC.dim)
    budget = Budget(tokens=10**6, shard_bytes=100 * (per_record + 6 * per_residue + 40))
    sizes = [b.size for b in cut_batches(with_originals(records), budget, FORM, SPEC)]
    assert {size.records for size in sizes} == {1}
    assert 90 < max(size.rows for size in sizes) <= 101
    assert sum(size.rows for size in sizes) == 1000
