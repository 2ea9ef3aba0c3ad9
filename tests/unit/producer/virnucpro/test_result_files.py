"""VirNucPro's files, against pandas and against a run with the real weights."""

import io
import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from producer.virnucpro.chunk_scores import Chunks, Scored, chunks_of
from producer.virnucpro.classifier import CLASSES, Classifier
from producer.virnucpro.result_files import highest_scores, write_frames, write_header
from tests.support.shared import shared_file
from tests.support.virnucpro import trained_module

REFERENCE = "virnucpro_reference"


def scored(ids: list[str], scores: np.ndarray, contigs: list[int] | None = None) -> Scored:
    numbers = contigs or [0] * len(ids)
    return Scored(ids, np.array(numbers, np.int64), np.asarray(scores, np.float32))


def results(*blocks: Scored) -> str:
    file = io.StringIO()
    write_header(file)
    for block in blocks:
        write_frames(file, block)
    return file.getvalue()


def by_pandas(ids: list[str], scores: np.ndarray) -> pd.DataFrame:
    """Return the original's table of frames."""
    return pd.DataFrame(
        {
            "Sequence_ID": ids,
            "Prediction": [CLASSES[label] for label in scores.argmax(axis=1)],
            "score1": scores[:, 0],
            "score2": scores[:, 1],
        }
    )


def highest_by_pandas(table: pd.DataFrame) -> str:
    """Return the original's table of the highest scores: groups by the id without its end."""
    table = table.assign(Modified_ID=table["Sequence_ID"].str[:-2])
    found = table.groupby("Modified_ID")[["score1", "score2"]].max().reset_index()
    found["Is_Virus"] = found["score2"] >= found["score1"]
    return found[["Modified_ID", "Is_Virus"]].to_csv(sep="\t", index=False)


def frames(contigs: int, seed: int = 0) -> tuple[list[str], list[int], np.ndarray]:
    """Return frames of contigs in the order of a translation, with scores."""
    rng, ids, numbers = random.Random(seed), [], []
    for contig in range(1, contigs + 1):
        for chunk in range(1, rng.randint(1, 12) + 1):
            for name in sorted(rng.sample(["F1", "F2", "F3", "R1", "R2", "R3"], rng.randint(1, 3))):
                ids.append(f"c{contig}_chunk_{chunk}{name}")
                numbers.append(contig - 1)
    virus = np.random.default_rng(seed).random(len(ids)).astype(np.float32)
    return ids, numbers, np.stack([1 - virus, virus], axis=1)


def test_both_files_are_those_that_pandas_writes():
    ids, numbers, scores = frames(40)
    table = by_pandas(ids, scores)
    assert results(scored(ids, scores)) == table.to_csv(sep="\t", index=False)
    chunks = chunks_of([scored(ids, scores, numbers)])
    assert "".join(highest_scores(chunks, "original")) == highest_by_pandas(table)
    names = [name for name in chunks.ids if name.startswith("c1_")]
    assert len(names) > 1


def test_chunks_are_in_the_order_of_their_names_as_texts():
    ids = [f"c_chunk_{n}F1" for n in range(1, 12)]
    lines = list(highest_scores(chunks_of([scored(ids, np.full((11, 2), 0.5))]), "original"))
    names = [line.split("\t")[0] for line in lines[1:]]
    assert names[:4] == ["c_chunk_1", "c_chunk_10", "c_chunk_11", "c_chunk_2"]
    assert lines[0] == "Modified_ID\tIs_Virus\n"


def test_the_columns_of_the_fork_are_in_the_order_of_the_input():
    ids = ["c_chunk_2F1", "c_chunk_2R1", "c_chunk_10F3"]
    scores = np.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]], np.float32)
    assert list(highest_scores(chunks_of([scored(ids, scores)]), "broad")) == [
        "Modified_ID\tIs_Virus\tmax_score_0\tmax_score_1\n",
        "c_chunk_2\tTrue\t0.5\t0.75\n",
        "c_chunk_10\tFalse\t0.9\t0.1\n",
    ]


def test_a_tie_is_a_virus_in_a_chunk_and_others_in_a_frame():
    block = scored(["c_chunk_1F1"], np.full((1, 2), 0.5))
    assert results(block).splitlines()[1] == "c_chunk_1F1\tothers\t0.5\t0.5"
    assert list(highest_scores(chunks_of([block]), "original"))[1] == "c_chunk_1\tTrue\n"


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40))
def test_scores_are_the_shortest_decimals_that_give_the_number_back(values):
    numbers = np.array(values, np.float32)
    text = results(scored(["x_chunk_1F1"] * len(values), np.stack([numbers, 1 - numbers], axis=1)))
    for line, number in zip(text.splitlines()[1:], numbers, strict=True):
        shown = line.split("\t")[2]
        assert np.float32(shown) == number
        assert shown == str(number)


def test_without_a_frame_there_are_headers_alone():
    assert results() == "Sequence_ID\tPrediction\tscore1\tscore2\n"
    empty = chunks_of([])
    assert list(highest_scores(empty, "original")) == ["Modified_ID\tIs_Virus\n"]
    assert empty == Chunks([], empty.contigs, empty.maxima, 0)


def test_a_frame_without_a_score_is_in_no_line_and_counted():
    scores = np.array([[0.2, 0.8], [np.nan, np.nan], [0.7, 0.3]], np.float32)
    block = scored(["c_chunk_1F1", "c_chunk_1F2", "c_chunk_2F1"], scores)
    assert "c_chunk_1F2" not in results(block)
    chunks = chunks_of([block])
    assert (chunks.ids, chunks.frames_without_score) == (["c_chunk_1", "c_chunk_2"], 1)


def test_chunks_of_two_contigs_with_one_name_are_kept_apart():
    ids = ["r_chunk_1F1", "r_chunk_1R2", "r_chunk_1F1"]
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]], np.float32)
    chunks = chunks_of([scored(ids, scores, [0, 0, 1])])
    assert chunks.ids == ["r_chunk_1", "r_chunk_1"]
    assert chunks.contigs.tolist() == [0, 1]
    np.testing.assert_array_equal(chunks.maxima, np.array([[0.9, 0.2], [0.1, 0.9]], np.float32))


@given(st.integers(1, 6), st.lists(st.integers(0, 40), max_size=8), st.integers(0, 9))
def test_chunks_do_not_depend_on_where_blocks_end(contigs, cuts, seed):
    ids, numbers, scores = frames(contigs, seed)
    whole = chunks_of([scored(ids, scores, numbers)])
    bounds = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    blocks = [scored(ids[a:b], scores[a:b], numbers[a:b]) for a, b in pairwise(bounds)]
    found = chunks_of(blocks)
    assert found.ids == whole.ids
    np.testing.assert_array_equal(found.maxima, whole.maxima)
    np.testing.assert_array_equal(found.contigs, whole.contigs)


# --- the reference run --------------------------------------------------------------------------


def published(name: str) -> str:
    return shared_file(REFERENCE, name).read_text()


def test_the_scores_of_the_reference_run_give_its_files_byte_for_byte():
    text = published("prediction_results.txt")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    scores = np.array([[row[2], row[3]] for row in rows]).astype(np.float32)
    block = scored([row[0] for row in rows], scores, [0, 0, 1, 1])
    assert results(block) == text
    highest = published("prediction_results_highestscore.csv")
    assert "".join(highest_scores(chunks_of([block]), "original")) == highest


def test_the_features_of_the_reference_run_give_what_the_original_s_rule_gives():
    path = shared_file(REFERENCE, "output_1_merged.pt")
    merged = torch.load(path, weights_only=True)
    features, ids = merged["data"], merged["ids"]
    module = trained_module(features=3328, hidden=512)
    with torch.no_grad():
        expected = torch.softmax(module(features), dim=1).numpy()
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    found = Classifier.of_state(state, "x").scores(features.numpy())
    assert np.abs(found - expected).max() <= 1e-6
    table = by_pandas(ids, found)
    assert results(scored(ids, found)) == table.to_csv(sep="\t", index=False)
    chunks = chunks_of([scored(ids, found, [0, 0, 1, 1])])
    assert "".join(highest_scores(chunks, "original")) == highest_by_pandas(table)


@pytest.mark.parametrize(("kind", "key"), [("DNABERT_S", "nucleotide"), ("ESM", "proteins")])
def test_the_reference_run_merges_in_the_order_of_the_dna(kind, key):
    merged = torch.load(shared_file(REFERENCE, "output_1_merged.pt"), weights_only=True)
    part = torch.load(shared_file(REFERENCE, f"output_1_{kind}.pt"), weights_only=True)
    assert sorted(part[key]) == sorted(merged["ids"])
    if kind == "DNABERT_S":
        assert part[key] == merged["ids"]
