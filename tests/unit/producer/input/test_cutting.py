"""Batches with copies and rows of earlier jobs: they end where one record after another says."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from common.embeddings.writer import pair_bytes, shard_bytes
from common.job.output_form import OutputForm
from common.job.records import Record
from producer.input.batches import Budget, cut_batches
from producer.input.identical import NONE
from tests.unit.producer.input.test_batches import DIM, PROTEIN_MODEL, budgets, forms, lengths


def batches_of(
    records: Sequence[Record], originals: Sequence[int], budget: Budget, form: OutputForm
) -> list[tuple[list[int], list[int], list[int]]]:
    """Return the rows that are computed, copied and reused of each batch, record by record."""
    per_record, per_residue = shard_bytes(form, DIM)
    batches: list[tuple[list[int], list[int], list[int]]] = []
    tokens = stored = 0
    for record, original in zip(records, originals, strict=True):
        length = form.embedded(len(record.residues))
        more = PROTEIN_MODEL.tokens(length) * form.passes(length)
        size = per_record + per_residue * length + pair_bytes(form) * length**2
        size += 8 * len(record.header)
        too_many = original == NONE and tokens + more > budget.tokens
        if not batches or too_many or stored + size > budget.shard_bytes:
            batches.append(([], [], []))
            tokens = stored = 0
            original = NONE
        kind = 0 if original == NONE else 1 if original >= 0 else 2
        batches[-1][kind].append(record.row)
        tokens += more if kind == 0 else 0
        stored += size
    return batches


@given(st.data(), lengths, budgets, forms, st.integers(1, 7))
def test_batches_with_copies_and_rows_of_earlier_jobs_end_where_one_record_after_another_does_it(
    data, lengths, budget, form, together
):
    headers = [data.draw(st.text("ab", max_size=9)) for _ in lengths]
    records = [
        Record(row, header, "M" * length)
        for row, (header, length) in enumerate(zip(headers, lengths, strict=True))
    ]
    originals = [data.draw(st.integers(-3, row) | st.just(NONE)) for row in range(len(records))]
    starts = range(0, len(records), together)
    chunks = [(records[i : i + together], originals[i : i + together]) for i in starts]
    found = [
        (
            [record.row for record in batch.records],
            [copy.row for copy in batch.copies],
            [reused.record.row for reused in batch.reused],
        )
        for batch in cut_batches(chunks, budget, form, PROTEIN_MODEL)
    ]
    assert found == batches_of(records, originals, budget, form)
