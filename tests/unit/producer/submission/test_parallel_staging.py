"""Several processes stage an input exactly as one does, with the same errors."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.input import blocks, checks, formats, molecule, packed, pieces, reader
from producer.input.batches import Budget
from producer.input.source import Source
from producer.input.sources import together
from producer.submission import staging_pool
from producer.submission.request import make_request
from tests.support.bgzip import bgzip
from tests.support.staging import PoolWithoutProcesses, outcome

PROTEINS, BASES = "esm2_t6_8M_UR50D", "dnabert_s"

#: Few different ones, so that many are identical.
good = st.sampled_from(["MKTAYIAKQR", "GEILVKQ", "MKWVTFISLL" * 9, "GAVLIMC" * 40, "A", "XBZ"])
odd = st.sampled_from(
    [
        "",
        "mktay",
        "MKT*",
        "MK-T",
        "M1K",
        "MK TA",
        "M\nK\n\nT",
        ";c\nMKT",
        "ACGT" * 9,
        "MKé",
        "J",
        "-",
    ]
)
headers = st.sampled_from(["a", "b", "c d", "", "é x", "a\tb", ">x", "ü" * 30, "y  "])
newlines = st.sampled_from(["\n", "\r\n", "\r"])
options = st.fixed_dictionaries(
    {
        "invalid": st.sampled_from(["error", "skip", "x"]),
        "gaps": st.sampled_from(["keep", "strip", "error"]),
        "long": st.sampled_from(["truncate", "error"]),
        "max_residues": st.sampled_from([20, 1022]),
        "min_length": st.sampled_from([1, 5]),
        "dedup": st.booleans(),
        "molecule": st.just("auto"),
    }
)
kinds = st.sampled_from(["", "", ".gz", ".bgz.gz", ".cut.gz", ".cut.bgz.gz"])
budgets = st.builds(Budget, tokens=st.integers(1, 2000))


bases = st.sampled_from(["ACGTACGTTA" * 5, "GATTACA", "acgtn" * 9, "ACGU" * 9, "RYSWN", "TTTA*"])


@st.composite
def fastas(draw: st.DrawFn, good: st.SearchStrategy[str] = good) -> bytes:
    """FASTA, most of it good."""
    letters = good if draw(st.booleans()) else good | good | good | odd
    width = draw(st.sampled_from([7, 60, 1000]))
    text = draw(st.sampled_from(["", "", "", "\n \n", "# a comment\n", "\ufeff"]))
    for _ in range(draw(st.integers(0, 60))):
        sequence = draw(letters)
        lines = [sequence[i : i + width] for i in range(0, len(sequence), width)]
        text += f">{draw(headers)}\n" + "".join(f"{line}\n" for line in lines)
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    data = text.replace("\n", draw(newlines)).encode()
    return data + draw(st.sampled_from([b"", b"", b"", b"", b"\n>z\nM\xffK\n", b"\n>\0\nMK"]))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several pieces even of a small input, and few records that are looked at in order."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 256)
    monkeypatch.setattr(packed, "CHUNK_BYTES", (200, 60))
    for module in (blocks, formats, pieces):
        monkeypatch.setattr(module, "READ_BYTES", 64)
    for module in (checks, molecule, reader):
        monkeypatch.setattr(module, "EARLY_RECORDS", 5)


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_pool, "StagingPool", PoolWithoutProcesses)


def as_file(data: bytes, suffix: str) -> bytes:
    """Return data as a file has it: as it is, packed, or packed and damaged."""
    if not suffix:
        return data
    whole = bgzip(data, 100) if "bgz" in suffix else gzip.compress(data)
    return whole[:-12] if "cut" in suffix else whole


def assert_same(
    files: list[tuple[str, bytes]], budget: Budget, model: str = PROTEINS, **chosen: Any
) -> None:
    """Check that files are staged in several processes as in one."""
    with TemporaryDirectory() as folder:
        sources = []
        for number, (suffix, data) in enumerate(files):
            path = Path(folder, f"{number}.fasta{suffix}")
            path.write_bytes(as_file(data, suffix))
            sources.append(Source(str(path)))
        request = make_request(together(sources), model, **chosen)
        one, several = (
            outcome(Path(folder, f"in-{number}"), request, budget, number, model)
            for number in (1, 2)
        )
    assert several == one


@pytest.mark.usefixtures("without_processes")
@given(
    st.lists(
        st.tuples(kinds, fastas()),
        min_size=1,
        max_size=3,
    ),
    budgets,
    options,
)
def test_any_proteins_are_staged_as_in_one_process(files, budget, options):
    assert_same(files, budget, **options)


@pytest.mark.usefixtures("without_processes")
@given(fastas(), budgets, options)
def test_any_proteins_are_refused_by_a_model_of_dna_as_in_one_process(data, budget, options):
    assert_same([("", data)], budget, BASES, **options)


@pytest.mark.usefixtures("without_processes")
@given(st.lists(st.tuples(kinds, fastas(bases)), min_size=1, max_size=3), budgets, options)
def test_any_bases_are_staged_as_in_one_process(files, budget, options):
    assert_same(files, budget, BASES, **options)


@pytest.mark.usefixtures("without_processes")
@given(fastas(bases), budgets, options)
def test_any_bases_are_refused_by_a_model_of_proteins_as_in_one_process(data, budget, options):
    assert_same([("", data)], budget, **options)
