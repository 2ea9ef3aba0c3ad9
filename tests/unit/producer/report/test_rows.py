"""Lengths and precisions of all rows, and the points of the map."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.embeddings.origins import Origins
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import PRECISION_CODES
from producer.report import rows
from producer.report.rows import collect, histogram_of, own_colours, precision_counts
from tests.support.shards import embeddings_of

FORM = OutputForm(max_residues=100)
DIM = 3


def parts_of(*sizes: int, form: OutputForm = FORM) -> list[Embeddings]:
    found, row = [], 0
    for size in sizes:
        records = [Record(row + k, f"r{row + k} of some", "M" * (1 + k)) for k in range(size)]
        found.append(embeddings_of(records, form, DIM))
        row += size
    return found


def test_all_rows_of_few_are_points():
    found = collect(parts_of(4, 3), 7, "mean")
    assert found.ids == [f"r{k}" for k in range(7)]
    assert found.headers[0] == "r0 of some"
    assert found.vectors.count == 7
    assert found.lengths == Counter({1: 2, 2: 2, 3: 2, 4: 1})
    assert precision_counts(found) == (("fp16", 7),)


def test_of_more_rows_the_same_sample_is_drawn_each_time(monkeypatch):
    monkeypatch.setattr(rows, "MOST_POINTS", 10)
    first, second = (collect(parts_of(20, 1, 19), 40, "mean") for _ in range(2))
    assert first.ids == second.ids
    assert len(set(first.ids)) == first.vectors.count == 10
    assert first.ids == sorted(first.ids, key=lambda id_: int(id_[1:]))
    assert first.count == 40
    assert first.lengths.total() == 40


def test_the_points_have_the_vectors_of_their_rows(monkeypatch):
    monkeypatch.setattr(rows, "MOST_POINTS", 5)
    parts = parts_of(8, 8)
    found = collect(parts, 16, "mean")
    by_id = {
        id_: vector
        for part in parts
        for id_, vector in zip(part.ids, part.pooled["mean"], strict=True)
    }
    [block] = found.vectors.blocks()
    np.testing.assert_array_equal(block, np.array([by_id[id_] for id_ in found.ids]))


def test_rows_that_are_not_finite_are_counted_and_are_no_points():
    [part] = parts_of(5)
    part.pooled["mean"][2] = np.nan
    part.precision[2] = PRECISION_CODES["none"]
    found = collect([part], 5, "mean")
    assert found.ids == ["r0", "r1", "r3", "r4"]
    assert (found.count, found.without_numbers) == (5, 1)
    assert precision_counts(found) == (("none", 1), ("fp16", 4))


def test_of_several_layers_the_last_one_is_shown():
    [part] = parts_of(4, form=FORM.model_copy(update={"layers": (1, -1)}))
    [block] = collect([part], 4, "mean").vectors.blocks()
    np.testing.assert_array_equal(block, part.pooled["mean"][:, -1])


def test_points_have_the_colours_length_precision_and_source():
    found = collect(parts_of(3), 3, "mean")
    length, precision, source = own_colours(found, Origins.of([("a.fa", 1), ("b.fa", 2)]))
    assert length.values.tolist() == [1, 2, 3]
    assert precision.names == ("fp16",)
    assert source.names == ("b.fa", "a.fa")
    assert source.values.tolist() == [1, 0, 0]
    assert [colour.name for colour in own_colours(found, None)] == ["length", "precision"]


def test_long_headers_are_cut():
    [part] = parts_of(1)
    part = replace(part, headers=["r0 " + "x" * 500])
    [header] = collect([part], 1, "mean").headers
    assert len(header) == rows.HEADER_SHOWN
    assert header.endswith("…")


@pytest.mark.parametrize(
    "values", [[7], [3, 4], list(range(1, 1000)), [1, 10**6], [95, 105, 10**9]], ids=lambda v: v[-1]
)
def test_every_value_is_in_one_bar_of_a_histogram(values):
    found = histogram_of(Counter(values))
    assert found.counts.sum() == len(values)
    assert len(found.edges) == len(found.counts) + 1 <= rows.BARS + 3
    expected, _ = np.histogram(values, found.edges)
    assert found.counts.tolist() == expected.tolist()
    assert found.edges[0] <= values[0]
    assert values[-1] < found.edges[-1]


def test_nothing_has_no_histogram():
    assert histogram_of(Counter()) is None
