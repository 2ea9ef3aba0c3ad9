"""Features of frames: two jobs joined by row, and VirNucPro's files of them."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from producer.virnucpro import feature_files
from producer.virnucpro.feature_files import write_feature_files
from producer.virnucpro.features import Features, side_by_side
from tests.support.shared import shared_file

DNA_WIDTH, PROTEIN_WIDTH = 3, 2


def frames(count: int, width: int, seed: int = 0) -> Features:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return Features([f"c_chunk_{n}F1" for n in range(count)], np.arange(count), vectors)


def cut(whole: Features, bounds: list[int]) -> Iterator[Features]:
    places = sorted({0, len(whole.ids), *(b for b in bounds if b < len(whole.ids))})
    for first, end in pairwise(places):
        yield Features(*(column[first:end] for column in whole))


@given(st.integers(1, 30), st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_rows_are_joined_wherever_the_batches_of_either_model_end(count, one, other):
    dna, proteins = frames(count, DNA_WIDTH), frames(count, PROTEIN_WIDTH, seed=1)
    blocks = list(side_by_side(cut(dna, one), cut(proteins, other)))
    vectors = np.concatenate([block.vectors for block in blocks])
    np.testing.assert_array_equal(vectors, np.hstack([dna.vectors, proteins.vectors]))
    assert [id_ for block in blocks for id_ in block.ids] == dna.ids
    assert np.concatenate([block.rows for block in blocks]).tolist() == list(range(count))


@pytest.mark.parametrize(
    "other",
    [
        frames(5, PROTEIN_WIDTH),
        Features([f"x{n}" for n in range(6)], np.arange(6), np.zeros((6, 2), np.float32)),
        frames(6, PROTEIN_WIDTH)._replace(rows=np.arange(1, 7)),
    ],
    ids=["fewer", "ids", "rows"],
)
def test_jobs_of_other_frames_are_not_joined(other):
    with pytest.raises(UserError, match="their jobs are not of one input"):
        list(side_by_side(iter([frames(6, DNA_WIDTH)]), iter([other])))


# --- VirNucPro's files --------------------------------------------------------------------------


def features(count: int) -> Features:
    return frames(count, DNA_WIDTH + PROTEIN_WIDTH)


def structure(value: object) -> object:
    """Return the types of a file's contents."""
    if isinstance(value, dict):
        return {key: structure(one) for key, one in value.items()}
    if isinstance(value, list):
        return [structure(value[0])]
    if isinstance(value, torch.Tensor):
        return value.dtype, value.ndim
    return type(value)


@pytest.mark.parametrize("kind", ["DNABERT_S", "ESM", "merged"])
def test_files_have_the_structure_of_the_reference_run(tmp_path, kind):
    write_feature_files([features(4)], DNA_WIDTH, tmp_path)
    reference = torch.load(shared_file("virnucpro_reference", f"output_1_{kind}.pt"))
    found = torch.load(tmp_path / f"output_1_{kind}.pt", weights_only=True)
    assert structure(found) == structure(reference)


def test_files_hold_the_vectors_of_the_same_frames_in_the_same_order(tmp_path):
    given = features(5)
    assert write_feature_files([given], DNA_WIDTH, tmp_path) == 5
    dna, esm, merged = (
        torch.load(tmp_path / f"output_1_{kind}.pt", weights_only=True)
        for kind in ("DNABERT_S", "ESM", "merged")
    )
    assert dna["nucleotide"] == esm["proteins"] == merged["ids"] == given.ids
    assert [one["label"] for one in dna["data"]] == given.ids
    lists = np.array([one["mean_representation"] for one in dna["data"]], np.float32)
    np.testing.assert_array_equal(lists, given.vectors[:, :DNA_WIDTH])
    np.testing.assert_array_equal(torch.stack(esm["data"]), given.vectors[:, DNA_WIDTH:])
    np.testing.assert_array_equal(merged["data"], given.vectors)


def test_above_ten_thousand_frames_there_are_several_files_that_belong_together(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(feature_files, "FRAMES_OF_A_FILE", 10)
    given = features(35)
    assert write_feature_files(cut(given, [4, 17, 18]), DNA_WIDTH, tmp_path) == 35
    assert len(list(tmp_path.iterdir())) == 4 * 3
    vectors, ids = [], []
    for number in range(1, 5):
        merged = torch.load(tmp_path / f"output_{number}_merged.pt", weights_only=True)
        esm = torch.load(tmp_path / f"output_{number}_ESM.pt", weights_only=True)
        assert esm["proteins"] == merged["ids"]
        np.testing.assert_array_equal(torch.stack(esm["data"]), merged["data"][:, DNA_WIDTH:])
        vectors.append(merged["data"].numpy())
        ids += merged["ids"]
    assert ids == given.ids
    np.testing.assert_array_equal(np.concatenate(vectors), given.vectors)
    assert [len(part) for part in vectors] == [10, 10, 10, 5]


def test_frames_without_an_embedding_are_left_out(tmp_path):
    given = features(3)
    given.vectors[1, 0] = np.nan
    assert write_feature_files([given], DNA_WIDTH, tmp_path) == 2
    merged = torch.load(tmp_path / "output_1_merged.pt", weights_only=True)
    assert merged["ids"] == [given.ids[0], given.ids[2]]
