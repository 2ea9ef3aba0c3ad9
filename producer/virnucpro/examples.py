"""The frames of viruses and of others, as examples to train on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from producer.virnucpro.chunk_scores import FRAME_LETTERS, first_of_each
from producer.virnucpro.features import Features
from producer.virnucpro.prediction import Contigs
from producer.virnucpro.training import Examples


def examples_of(
    features: Iterable[Features], contigs: Contigs, viruses: int, folder: Path, width: int
) -> Examples:
    """Write the features of all frames into a file, and return them as examples.

    Args:
        features: those of the viruses' frames first.
        contigs: of all frames.
        viruses: number of contigs that are viruses, which come first.
        folder: where the file is; it is needed as long as the examples.
        width: numbers of a frame.
    """
    count = int(contigs.numbers[:, 2].sum())
    shape = (count, width)
    stored = np.memmap(folder / "features.f32", np.float32, "w+", shape=shape)
    groups = np.zeros(count, np.int64)
    names: list[str] = []
    for block in features:
        stored[block.rows] = block.vectors
        groups[block.rows] = contigs.of_rows(block.rows)
        names += [id_[:-FRAME_LETTERS] for id_ in block.ids]
    firsts = first_of_each(names, groups)
    chunks = np.searchsorted(firsts, np.arange(count), side="right") - 1
    return Examples(stored, (groups < viruses).astype(np.int64), groups, chunks)
