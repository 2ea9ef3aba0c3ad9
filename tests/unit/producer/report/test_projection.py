"""Principal components of vectors that lie in a file, and UMAP where it is installed."""

import numpy as np
import pytest

from producer.report import projection
from producer.report.projection import Vectors, has_umap, pca, projections


def vectors_of(values: np.ndarray) -> Vectors:
    vectors = Vectors(values.shape[1])
    for start in range(0, len(values), 7):
        vectors.append(values[start : start + 7].astype(np.float32))
    return vectors


def numbers(count: int, dim: int) -> np.ndarray:
    draw = np.random.default_rng(3)
    return draw.normal(size=(count, dim)) * np.linspace(3, 0.5, dim) + 40


@pytest.mark.parametrize(("count", "dim"), [(200, 12), (12, 200), (12, 12), (40, 2), (3, 2)])
@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_components_are_those_of_the_singular_values(count, dim, block_bytes, monkeypatch):
    monkeypatch.setattr(projection, "BLOCK_BYTES", block_bytes)
    values = numbers(count, dim)
    found, shares = pca(vectors_of(values))
    centred = values - values.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * singular[:2]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    np.testing.assert_allclose(shares, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-5)


def test_the_sign_of_a_component_is_that_of_its_largest_weight():
    values = numbers(50, 6)
    found, _ = pca(vectors_of(values))
    for component in found.T:
        weights = (values - values.mean(axis=0)).T @ component
        assert weights[np.abs(weights).argmax()] > 0
    again, _ = pca(vectors_of(values))
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(("count", "dim"), [(0, 5), (1, 5), (4, 1), (2, 5)])
def test_components_that_there_are_not_are_zeros(count, dim):
    found, shares = pca(vectors_of(numbers(count, dim)))
    assert found.shape == (count, 2)
    assert np.isfinite(found).all()
    assert not found[:, 1].any()
    assert shares[1] == pytest.approx(0, abs=1e-9)


def test_equal_vectors_lie_in_one_place():
    found, shares = pca(vectors_of(np.full((20, 3), 7.0)))
    assert not found.any()
    assert not shares.any()


def test_the_axes_say_what_share_of_the_variance_they_have():
    values = np.zeros((40, 3))
    values[:, 1] = np.arange(40)
    [found] = projections(vectors_of(values), with_umap=False)
    assert found.name == "PCA"
    assert found.titles == ("PC1 (100.0% of the variance)", "PC2 (0.0% of the variance)")


def test_umap_makes_the_same_map_each_time():
    if not has_umap():
        pytest.skip("needs umap-learn, which users install themselves")
    values = numbers(60, 8)
    first, second = (projections(vectors_of(values), with_umap=True)[1] for _ in range(2))
    assert first.name == "UMAP"
    assert np.isfinite(first.coordinates).all()
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


def test_a_few_points_have_no_umap():
    assert [p.name for p in projections(vectors_of(numbers(5, 8)), with_umap=True)] == ["PCA"]


def test_a_folder_that_is_named_umap_is_not_taken_for_it(tmp_path, monkeypatch):
    if has_umap():
        pytest.skip("umap-learn is installed here")
    (tmp_path / "umap").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not has_umap()
