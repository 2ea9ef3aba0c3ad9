"""Frames as examples: their labels, contigs and chunks, and their features in a file."""

import numpy as np

from producer.virnucpro.examples import examples_of
from producer.virnucpro.features import Features
from producer.virnucpro.prediction import Contigs


def test_frames_have_the_label_of_their_contig_and_the_number_of_their_chunk(tmp_path):
    # Two viruses, of which the second has no frame, and two others with one name.
    contigs = Contigs(["v", "w", "x", "x"], np.array([[9, 3, n, 0] for n in (3, 0, 1, 2)]))
    ids = ["v_chunk_1F1", "v_chunk_1R2", "v_chunk_2F3", "x_chunk_1F1", "x_chunk_1F1", "x_chunk_3R1"]
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    blocks = [Features(ids[a:b], np.arange(a, b), vectors[a:b]) for a, b in ((0, 2), (2, 6))]
    found = examples_of(blocks, contigs, 2, tmp_path, 2)
    np.testing.assert_array_equal(found.features, vectors)
    assert found.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert found.groups.tolist() == [0, 0, 0, 2, 3, 3]
    assert found.chunks.tolist() == [0, 0, 1, 2, 3, 4]
