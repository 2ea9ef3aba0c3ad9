"""Maps of vectors in two dimensions: principal components, and UMAP where it is installed."""

import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from tempfile import TemporaryFile
from weakref import finalize

import numpy as np

from common.embeddings.arrays import Array
from producer.report.contents import Projection

#: Bytes of vectors, in double precision, that are worked on at once.
BLOCK_BYTES = 64 * 2**20

#: Principal components that UMAP begins with, and neighbours of a point that it looks at.
UMAP_COMPONENTS, UMAP_NEIGHBOURS = 50, 15

#: The fewest points of which UMAP makes a map.
UMAP_POINTS = 10


class Vectors:
    """Vectors ``[n, D]`` in a temporary file, which ends with this: memory may not hold them."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self._file = TemporaryFile()  # noqa: SIM115
        finalize(self, self._file.close)

    def append(self, vectors: Array) -> None:
        """Add vectors ``[m, D]``, which must be finite."""
        self._file.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        self.count += len(vectors)

    def blocks(self) -> Iterator[Array]:
        """Yield all vectors in order, in blocks, float64 ``[m, D]``."""
        self._file.seek(0)
        most = max(1, BLOCK_BYTES // (8 * self.dim))
        for start in range(0, self.count, most):
            rows = min(most, self.count - start)
            data = self._file.read(4 * self.dim * rows)
            yield np.frombuffer(data, np.float32).reshape(rows, self.dim).astype(np.float64)


def pca(vectors: Vectors, components: int = 2) -> tuple[Array, Array]:
    """Return the principal components of vectors, and the share of the variance of each.

    A direction's sign is that of its largest weight, so that a map is the same each time.

    Returns:
        Coordinates float32 ``[n, components]``, and shares float64 ``[components]``. Components
        that there are not are zeros.
    """
    coordinates = np.zeros((vectors.count, components), np.float32)
    shares = np.zeros(components)
    if vectors.count == 0:
        return coordinates, shares
    mean = sum(block.sum(axis=0) for block in vectors.blocks()) / vectors.count
    axes, variances = principal_axes(vectors, mean, components)
    if not (total := variances.sum()) > 0:
        return coordinates, shares
    shares[: len(axes)] = variances[: len(axes)] / total
    start = 0
    for block in vectors.blocks():
        coordinates[start : start + len(block), : len(axes)] = (block - mean) @ axes.T
        start += len(block)
    return coordinates, shares


def principal_axes(vectors: Vectors, mean: Array, components: int) -> tuple[Array, Array]:
    """Return the directions ``[k, D]`` of the most variance, and all variances, times n.

    The smaller of two matrices is decomposed: products of dimensions, or of vectors.
    """
    if vectors.count < vectors.dim:
        centred = np.concatenate([block - mean for block in vectors.blocks()])
        variances, eigenvectors = np.linalg.eigh(centred @ centred.T)
        lengths = np.sqrt(np.maximum(variances, 0))
        known = lengths > 1e-7 * max(lengths.max(), 1e-300)
        axes = (centred.T @ eigenvectors[:, known] / lengths[known]).T
    else:
        products = np.zeros((vectors.dim, vectors.dim))
        for block in vectors.blocks():
            block -= mean
            products += block.T @ block
        variances, eigenvectors = np.linalg.eigh(products)
        axes = eigenvectors.T
    axes = axes[::-1][:components]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    return axes * np.sign(largest)[:, None], np.maximum(variances[::-1], 0)


def has_umap() -> bool:
    """Return whether UMAP is installed: a folder of that name could be imported, too."""
    try:
        return bool(distribution("umap-learn"))
    except PackageNotFoundError:
        return False


def projections(vectors: Vectors, *, with_umap: bool) -> tuple[Projection, ...]:
    """Return the maps of vectors: PCA, and UMAP where it is wanted and there are enough points."""
    with_umap = with_umap and vectors.count >= UMAP_POINTS
    components = max(2, min(UMAP_COMPONENTS, vectors.dim)) if with_umap else 2
    coordinates, shares = pca(vectors, components)
    titles = tuple(f"PC{k + 1} ({shares[k]:.1%} of the variance)" for k in range(2))
    found = [Projection("PCA", np.ascontiguousarray(coordinates[:, :2]), (titles[0], titles[1]))]
    if with_umap:
        found.append(Projection("UMAP", umap(coordinates), ("UMAP 1", "UMAP 2")))
    return tuple(found)


def umap(components: Array) -> Array:
    """Return UMAP's map of principal components, the same each time, float32 ``[n, 2]``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fixed seed leaves it one thread
        neighbours = min(UMAP_NEIGHBOURS, len(components) - 1)
        reducer = import_module("umap").UMAP(n_neighbors=neighbours, random_state=0)
        return np.asarray(reducer.fit_transform(components), np.float32)
