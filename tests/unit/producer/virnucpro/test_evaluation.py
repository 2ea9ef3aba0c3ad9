"""Figures of scores are those of slow definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.virnucpro.evaluation import auroc, brier_score, chunk_figures, frame_figures

scored = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]), st.integers(0, 1)),
    min_size=2,
    max_size=40,
).filter(lambda rows: {label for _, label in rows} == {0, 1})


@given(scored)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows):
    viruses = [score for score, label in rows if label]
    others = [score for score, label in rows if not label]
    wins = sum((a > b) + (a == b) / 2 for a in viruses for b in others)
    scores, labels = (np.array(each) for each in zip(*rows, strict=True))
    assert auroc(scores, labels) == pytest.approx(wins / (len(viruses) * len(others)), abs=1e-12)


@given(scored)
def test_the_brier_score_is_the_mean_of_those_of_the_classes(rows):
    def mean(label: int) -> float:
        errors = [(score - label) ** 2 for score, of in rows if of == label]
        return sum(errors) / len(errors)

    scores, labels = (np.array(each) for each in zip(*rows, strict=True))
    expected = (mean(0) + mean(1)) / 2
    assert brier_score(scores, labels) == pytest.approx(expected, abs=1e-12)


def pairs(*virus_scores: float) -> np.ndarray:
    return np.array([[1 - score, score] for score in virus_scores], np.float32)


def test_a_frame_with_equal_scores_is_not_called_a_virus():
    found = frame_figures(pairs(0.5, 0.5, 0.9, 0.2), np.array([1, 0, 1, 0]))
    confusion = found.confusion
    assert (confusion.true_positives, confusion.false_negatives) == (1, 1)
    assert (confusion.true_negatives, confusion.false_positives) == (2, 0)
    assert found.accuracy == 0.75


def test_a_chunk_with_equal_highest_scores_is_called_a_virus():
    # Highest scores of chunk 4: others 0.8, virus 0.8; of chunk 9: others 0.7, virus 0.4.
    scores, chunks = pairs(0.2, 0.3, 0.8, 0.4), np.array([4, 9, 4, 9])
    found = chunk_figures(scores, np.array([1, 0, 1, 0]), chunks)
    assert found.confusion.true_positives == 1
    assert found.confusion.true_negatives == 1
    assert found.accuracy == found.auroc == 1


@given(scored, st.integers(0, 2**32 - 1))
def test_chunks_are_called_by_the_highest_scores_of_their_frames(rows, seed):
    labels_of_chunk = [label for _, label in rows]
    frames = np.random.default_rng(seed).integers(0, len(rows), 3 * len(rows))
    frames = np.concatenate([np.arange(len(rows)), frames])
    scores = pairs(*np.random.default_rng(seed).random(len(frames)))
    found = chunk_figures(scores, np.array(labels_of_chunk)[frames], frames)
    called = [
        scores[frames == chunk, 1].max() >= scores[frames == chunk, 0].max()
        for chunk in range(len(rows))
    ]
    right = sum(call == bool(label) for call, label in zip(called, labels_of_chunk, strict=True))
    assert found.accuracy == pytest.approx(right / len(rows))
    assert found.confusion.true_positives == sum(
        call and label for call, label in zip(called, labels_of_chunk, strict=True)
    )


def test_balanced_accuracy_weighs_a_rare_class_like_a_frequent_one():
    labels = np.array([1] * 2 + [0] * 98)
    found = frame_figures(pairs(*[0.1] * 100), labels)
    assert found.accuracy == 0.98
    assert found.balanced_accuracy == 0.5
    assert found.auroc == 0.5
