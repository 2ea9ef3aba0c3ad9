"""Labelled frames that tests train on."""

import numpy as np

from producer.virnucpro.training import Examples


def clouds(
    contigs: int = 60, frames: int = 20, width: int = 8, distance: float = 2.0, seed: int = 0
) -> Examples:
    """Return two Gaussian clouds of unit variance, whose centres are a distance apart.

    Half of the contigs are viruses; a chunk has two frames.
    """
    draw = np.random.default_rng(seed)
    count = contigs * frames
    groups = np.arange(count) // frames
    labels = (groups >= contigs // 2).astype(np.int64)
    features = draw.standard_normal((count, width)).astype(np.float32)
    features[:, 0] += (distance * labels).astype(np.float32)
    return Examples(features, labels, groups, np.arange(count) // 2)
