"""Embeddings as arrays: rows selected, concatenated, and laid over the records of a batch."""

import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.job.output_form import PAIR_SCORES, RESIDUE_SCORES, OutputForm
from common.job.records import Record
from common.rungs import PRECISION_CODES, Rung
from tests.support.shards import embeddings_of

DIM = 4
FORMS = [
    OutputForm(max_residues=1022),
    OutputForm(max_residues=1022, include=("bos", "mean")),
    OutputForm(max_residues=6, include=("mean", "per_residue")),
    OutputForm(max_residues=1022, include=("per_residue",), residue_dtype="float32"),
    OutputForm(max_residues=1022, include=("mean", "bos", "per_residue"), layers=(-1, 0, 3)),
    OutputForm(max_residues=6, include=("entropy", "pseudo_perplexity_unmasked", "logits")),
    OutputForm(max_residues=6, include=("mean", "per_residue", "logits"), layers=(-1, 0)),
    OutputForm(max_residues=6, include=("contacts", "bos")),
]
RECORDS = [Record(row, f"id{row} x", "MKVLGAST"[: 1 + row % 8]) for row in (0, 1, 3, 4, 7, 12, 13)]


def describe(form: OutputForm) -> str:
    return f"{'+'.join(form.include)} of {len(form.layers)} layers"


every_form = pytest.mark.parametrize("form", FORMS, ids=describe)


def everything_of(embeddings: Embeddings) -> dict[str, object]:
    """All values, arrays with their types and shapes."""

    def described(values: object) -> object:
        is_array = isinstance(values, np.ndarray)
        return (values.dtype, values.shape, values.tobytes()) if is_array else values

    columns = {**embeddings.columns, **embeddings.ragged}
    return {name: described(values) for name, values in columns.items()}


def row_of(whole: Embeddings, index: int) -> Embeddings:
    """One row, cut out by its place."""
    end = int(whole.lengths[: index + 1].sum())
    here, letters = slice(index, index + 1), slice(end - int(whole.lengths[index]), end)
    end = int((whole.lengths[: index + 1] ** 2).sum())
    pairs = slice(end - int(whole.lengths[index]) ** 2, end)
    places = dict.fromkeys(RESIDUE_SCORES, letters) | dict.fromkeys(PAIR_SCORES, pairs)
    return Embeddings(
        rows=whole.rows[here],
        headers=whole.headers[here],
        ids=whole.ids[here],
        lengths=whole.lengths[here],
        input_lengths=whole.input_lengths[here],
        precision=whole.precision[here],
        pooled={name: values[here] for name, values in whole.pooled.items()},
        residues=None if whole.residues is None else whole.residues[letters],
        scores={name: values[places.get(name, here)] for name, values in whole.scores.items()},
    )


@pytest.mark.parametrize(("layers", "shape"), [((-1,), (4,)), ((-1, 2), (2, 4))])
def test_only_several_layers_have_an_axis_of_their_own(layers, shape):
    assert OutputForm(max_residues=9, layers=layers).vector_shape(DIM) == shape


@every_form
def test_single_rows_concatenated_are_the_whole(form):
    whole = embeddings_of(RECORDS, form, DIM)
    parts = [row_of(whole, index) for index in range(len(RECORDS))]
    assert everything_of(Embeddings.concatenate(parts, form, DIM)) == everything_of(whole)


@every_form
def test_no_parts_concatenated_have_the_types_and_shapes_of_the_form(form):
    assert everything_of(Embeddings.concatenate([], form, DIM)) == everything_of(
        embeddings_of([], form, DIM)
    )


@every_form
@pytest.mark.parametrize("chosen", [[], [0], [2, 5], [0, 1, 2, 3, 4, 5, 6]])
def test_selected_rows_keep_their_values_and_their_order(form, chosen):
    whole = embeddings_of(RECORDS, form, DIM)
    mask = np.isin(np.arange(len(RECORDS)), chosen)
    expected = Embeddings.concatenate([row_of(whole, index) for index in chosen], form, DIM)
    assert everything_of(whole.select(mask)) == everything_of(expected)


def test_nothing_is_copied_if_all_rows_are_selected():
    whole = embeddings_of(RECORDS, FORMS[0], DIM)
    assert whole.select(np.ones(len(whole), bool)) is whole


@every_form
def test_parts_in_any_order_overlaid_are_the_whole(form):
    whole = embeddings_of(RECORDS, form, DIM)
    parts = [whole.select(whole.rows % 2 == rest) for rest in (1, 0)]
    assert everything_of(Embeddings.overlay(parts, RECORDS, form, DIM)) == everything_of(whole)


def test_a_row_that_no_part_has_is_nan_with_precision_none():
    form = OutputForm(max_residues=1022, include=("mean", "bos", "per_residue"))
    part = embeddings_of(RECORDS[1:], form, DIM)
    whole = Embeddings.overlay([part], RECORDS, form, DIM)
    assert whole.ids == [record.id for record in RECORDS]
    assert whole.precision.tolist() == [PRECISION_CODES["none"]] + [PRECISION_CODES[Rung.FP16]] * 6
    assert all(np.isnan(values[0]).all() for values in whole.pooled.values())
    assert whole.residues is not None
    assert np.isnan(whole.residues[0]).all()
    assert np.array_equal(whole.residues[1:], part.residues)


def test_the_last_of_several_parts_with_a_row_counts():
    parts = [
        embeddings_of(RECORDS, FORMS[0], DIM),
        embeddings_of(RECORDS[2:3], FORMS[0], DIM, precision=Rung.FP32),
    ]
    whole = Embeddings.overlay(parts, RECORDS, FORMS[0], DIM)
    assert whole.precision[2] == PRECISION_CODES[Rung.FP32]
    assert np.array_equal(whole.pooled["mean"][2], parts[1].pooled["mean"][0])
    assert np.array_equal(whole.pooled["mean"][3], parts[0].pooled["mean"][3])


def test_a_row_of_another_batch_cannot_be_overlaid():
    part = embeddings_of([Record(99, "x", "MK")], FORMS[0], DIM)
    with pytest.raises(KeyError, match="99"):
        Embeddings.overlay([part], RECORDS, FORMS[0], DIM)
