"""Rows are read once each, whatever holds them, in an order that does not depend on that."""

import h5py
import numpy as np
import pytest

from producer.virnucpro import minibatches
from producer.virnucpro.minibatches import FEWEST_ROWS, RowReader, finite_rows


def table(count: int, width: int = 3) -> np.ndarray:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def chosen_of(count: int, share: float = 0.7) -> np.ndarray:
    chosen = np.random.default_rng(count).random(count) < share
    chosen[:2] = True
    return chosen


@pytest.fixture(params=[1, 5, 128], autouse=True)
def slice_rows(request, monkeypatch):
    monkeypatch.setattr(minibatches, "SLICE_ROWS", request.param)
    monkeypatch.setattr(minibatches, "BUFFER_BYTES", 12 * 40)


@pytest.mark.parametrize("count", [2, 3, 40, 1000, 1024])
def test_each_chosen_row_comes_once_with_its_features(count):
    features, chosen = table(count), chosen_of(count)
    reader = RowReader(features, chosen)
    for batches in (reader.in_order(), reader.minibatches(np.random.default_rng(0), 16)):
        places = []
        for rows in batches:
            np.testing.assert_array_equal(rows.features, features[rows.places])
            places += rows.places.tolist()
        assert sorted(places) == np.flatnonzero(chosen).tolist()


def test_rows_in_order_are_in_the_order_of_the_table():
    reader = RowReader(table(500), chosen_of(500))
    places = np.concatenate([rows.places for rows in reader.in_order()])
    np.testing.assert_array_equal(places, np.flatnonzero(chosen_of(500)))


@pytest.mark.parametrize("count", [2, 3, 5, 17, 100, 1001])
@pytest.mark.parametrize("most", [FEWEST_ROWS, 5, 16])
def test_minibatches_have_two_rows_at_least_and_no_more_than_is_asked(count, most):
    reader = RowReader(table(count), np.ones(count, bool))
    for seed in range(5):
        for rows in reader.minibatches(np.random.default_rng(seed), most):
            assert 2 <= len(rows.places) <= most


def test_minibatches_mix_the_table():
    reader = RowReader(table(1000), np.ones(1000, bool))
    batches = [rows.places for rows in reader.minibatches(np.random.default_rng(0), 1000)]
    order = np.concatenate(batches)
    assert (np.diff(order) == 1).mean() < 0.2
    assert order[:500].max() > 600  # though no buffer holds so many rows
    again = np.concatenate(
        [rows.places for rows in reader.minibatches(np.random.default_rng(1), 1000)]
    )
    assert (order != again).any()


def test_a_file_and_a_memory_map_give_what_an_array_gives(tmp_path):
    features, chosen = table(300), chosen_of(300)
    np.save(tmp_path / "features.npy", features)
    with h5py.File(tmp_path / "features.h5", "w") as file:
        held = [
            features,
            np.load(tmp_path / "features.npy", mmap_mode="r"),
            file.create_dataset("features", data=features, chunks=(7, 2)),
        ]
        read = [
            [
                (rows.places.tolist(), rows.features.tolist())
                for rows in RowReader(each, chosen).minibatches(np.random.default_rng(3), 32)
            ]
            for each in held
        ]
    assert read[0] == read[1] == read[2]


def test_rows_with_a_value_that_is_not_finite_are_found():
    features = table(200)
    features[3, 1], features[150, 0], features[199, 2] = np.nan, np.inf, -np.inf
    assert np.flatnonzero(~finite_rows(features)).tolist() == [3, 150, 199]


def test_an_empty_table_has_no_rows():
    assert finite_rows(table(0)).tolist() == []
