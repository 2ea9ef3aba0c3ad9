"""The split of labelled frames into a training set and a held-out set, by contig."""

import numpy as np

from common.embeddings.arrays import Array


def held_out_rows(
    labels: Array, groups: Array, share: float, generator: np.random.Generator
) -> Array:
    """Return which frames are held out, bool ``[n]``: all of a contig, or none.

    Of each class, the share of its contigs is held out, rounded, but at least one contig is on
    either side. Contigs are drawn in the order of their numbers, whatever the order of the rows.

    Args:
        labels: 0 or 1, ``[n]``.
        groups: number of the contig, ``[n]``; at least 2 contigs of each class.
        share: of contigs, between 0 and 1.
        generator: the source of the draw.
    """
    held_out = np.zeros(len(labels), bool)
    for contigs in contigs_by_class(labels, groups):
        count = min(max(round(share * len(contigs)), 1), len(contigs) - 1)
        held_out |= np.isin(groups, generator.permutation(contigs)[:count])
    return held_out


def contigs_by_class(labels: Array, groups: Array) -> tuple[Array, Array]:
    """Return the sorted numbers of each class's contigs, others first."""
    return np.unique(groups[labels == 0]), np.unique(groups[labels == 1])


def chunk_numbers(groups: Array, chunks: Array) -> Array:
    """Return numbers from 0 of the chunks ``[n]``, which differ between contigs."""
    contig = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    chunk = np.unique(chunks, return_inverse=True)[1].astype(np.int64)
    pairs = contig * (chunk.max(initial=0) + 1) + chunk
    return np.unique(pairs, return_inverse=True)[1]


def class_weights(labels: Array) -> tuple[float, float]:
    """Return the weight of a row of each class, so that both count alike and the mean is 1.

    It is ``n / (2 n_c)`` for the ``n_c`` of ``n`` rows that are of class ``c``; both have rows.
    """
    counts = np.bincount(labels, minlength=2)
    others, virus = (len(labels) / (2 * counts)).tolist()
    return others, virus
