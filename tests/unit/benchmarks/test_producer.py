"""The benchmark of the producer, and its input."""

from collections import Counter
from itertools import islice

import dnaio
import numpy as np
import pytest

from benchmarks.fasta import BLOCK, LETTERS, LINE, SHORTEST, protein_blocks, write_proteins
from benchmarks.producer import kinds_of, measure


@pytest.mark.parametrize("processes", [1, 2])
def test_an_input_is_staged_anew_each_time(tmp_path, processes):
    (tmp_path / "proteins.fasta").write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    for _ in range(2):
        found = measure("on", tmp_path, "esm2_t6_8M_UR50D", processes)
        assert min(found.values()) > 0
    assert len(list(tmp_path.glob("*/*/manifest.json"))) == 2


@pytest.mark.parametrize("number", [1, 2])
def test_a_file_is_hashed(tmp_path, number):
    (tmp_path / "proteins.fasta").write_text(">a\nMKTAYIAK\n")
    assert measure("hash", tmp_path, "esm2_t6_8M_UR50D", number)["seconds"] > 0


def test_identical_sequences_are_computed_by_more_processes_only_if_that_is_asked_for():
    assert ("on", 4) in kinds_of(["on", "off"], [1, 4])
    assert [kind for kind in kinds_of(["off"], [1, 4]) if kind[0] in ("on", "off")] == [("off", 1)]


def test_an_input_has_the_size_asked_for_and_no_record_more(tmp_path):
    path = tmp_path / "proteins.fasta"
    records = write_proteins(path, 50_000)
    with dnaio.open(path) as file:
        found = list(file)
    assert len(found) == records
    assert [record.name for record in found] == [
        f"P{number:08} protein {number}" for number in range(records)
    ]
    last = path.read_bytes().rpartition(b">")[2]
    assert path.stat().st_size - len(last) - 1 < 50_000 <= path.stat().st_size


def test_sequences_have_lines_of_60_and_each_letter_as_often(tmp_path):
    (block,) = islice(protein_blocks(), 1)
    letters: Counter[int] = Counter()
    lengths = []
    for record in block:
        header, *lines = record.splitlines()
        assert header.startswith(b">P")
        assert {len(line) for line in lines[:-1]} <= {LINE}
        assert 0 < len(lines[-1]) <= LINE
        letters.update(b"".join(lines))
        lengths.append(sum(map(len, lines)))
    assert set(letters) == set(LETTERS)
    assert max(letters.values()) < 1.02 * min(letters.values())
    assert min(lengths) >= SHORTEST
    assert 270 < np.median(lengths) < 310


@pytest.mark.parametrize("identical", [0.0, 0.3, 0.9])
def test_a_share_of_sequences_is_identical_and_blocks_do_not_repeat(identical):
    blocks = islice(protein_blocks(identical), 3)
    bodies = [record.partition(b"\n")[2] for block in blocks for record in block]
    assert len(bodies) == 3 * BLOCK
    assert len(set(bodies)) / len(bodies) == pytest.approx(1 - identical, abs=0.02)


def test_the_same_seed_gives_the_same_input():
    first, again, other = (next(protein_blocks(0.5, seed)) for seed in (1, 1, 2))
    assert first == again != other
