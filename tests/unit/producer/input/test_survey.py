"""A survey counts every record of an input once, whatever is wrong with some of them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from producer.input.reader import Reader
from producer.input.source import Source
from producer.input.sources import together
from producer.input.survey import BINS, Survey, windows_of
from workers.engine.windows import windows


def survey_of(*paths: Path, overlap: int | None = None, **options) -> Survey:
    """Return a survey that has read files, with its rows."""
    defaults = {"alphabet": PROTEIN, "unknown": "error", "long": "truncate", "max_residues": 20}
    reader = Reader(together([Source(str(path)) for path in paths]), **(defaults | options))
    survey = Survey(reader, overlap)
    survey.rows = [record.row for records, _ in survey.chunks(dedup=True) for record in records]
    return survey


@pytest.fixture
def survey(tmp_path):
    def run(text: str, **options) -> Survey:
        (tmp_path / "in.fa").write_text(text)
        return survey_of(tmp_path / "in.fa", **options)

    return run


records = st.lists(
    st.tuples(
        st.text("MKmkJ*-. 1é", max_size=30) | st.sampled_from(["", "M" * 25, "ACGTACGTAC" * 3]),
        st.sampled_from(["", "\n", "\n; comment\n", "\n\n"]),
    ),
    min_size=1,
    max_size=30,
)


@given(
    records,
    st.sampled_from(["error", "x", "skip"]),
    st.sampled_from(["error", "skip"]),
    st.sampled_from(["error", "truncate"]),
    st.sampled_from(["keep", "strip", "error"]),
    st.sampled_from([1, 5]),
)
def test_every_record_is_a_row_left_out_or_bad(
    tmp_path_factory, records, unknown, left_out, long, gaps, min_length
):
    path = tmp_path_factory.getbasetemp() / "survey.fa"
    path.write_text("".join(f">r{n}\n{text}{end}\n" for n, (text, end) in enumerate(records)))
    survey = survey_of(
        path,
        unknown=unknown,
        empty=left_out,
        short=left_out,
        long=long,
        gaps=gaps,
        min_length=min_length,
    )
    reader = survey.reader
    left = reader.skipped + reader.empty + reader.short
    assert reader.read == len(records) == survey.records_of[0]
    assert len(survey.rows) + left + reader.problems.count == len(records)
    assert survey.rows == sorted(set(survey.rows))
    letters = Counter("".join("".join(text.split()) for text, _ in records).replace("é", ""))
    upper = Counter({sign: letters[sign] + letters[sign.lower()] for sign in "MK"})
    assert {sign: survey.letters[sign] for sign in "MK"} == upper
    assert survey.lower_case - survey.letters["é"] == letters["m"] + letters["k"]
    with_letters = [n for text, _ in records if (n := len("".join(text.split()).rstrip("*")))]
    assert survey.lengths.sum() == len(with_letters)
    assert survey.total == sum(with_letters)
    if with_letters:
        assert (survey.shortest, survey.longest) == (min(with_letters), max(with_letters))


@pytest.mark.parametrize("length", [1, 9, 10, 11, 18, 19, 20, 100, 101, 12_345])
@pytest.mark.parametrize(("size", "overlap"), [(10, 0), (10, 1), (10, 9), (100, 10)])
def test_windows_are_counted_as_workers_cut_them(length, size, overlap):
    assert windows_of(length, size, overlap) == len(windows(length, size, overlap))


def test_what_is_truncated_or_in_windows_is_counted(survey):
    text = f">a\n{'MK' * 15}\n>b\n{'MK' * 10}\n>c\n{'MK' * 50}\n"
    found = survey(text)
    assert (found.reader.long_records, found.lost, found.windows) == (2, 10 + 80, 0)
    found = survey(text, overlap=2, long="window")
    assert (found.lost, found.windows) == (0, 2 + 6)


def test_a_bin_has_the_lengths_from_its_first_to_before_the_next(survey):
    found = survey("".join(f">r\n{'M' * n}\n" for n in (1, 2, 4, 5, 9, 10, 19, 20)))
    filled = {int(first): int(n) for first, n in zip(BINS, found.lengths, strict=True) if n}
    assert filled == {1: 1, 2: 2, 5: 2, 10: 2, 20: 1}


def test_gaps_are_counted_but_no_stop_at_the_end(survey):
    found = survey(">a\nM--K.\n>b\nMK.\n>c\nM.K\n>d\nMK*\n>e\n---\n", empty="skip", gaps="error")
    assert (found.gapped, found.gaps) == (2, 3)
    assert found.reader.problems.kinds == {"gaps": 2}


def test_equal_ids_and_equal_letters_are_counted(survey):
    found = survey(">a\nMK\nT\n>b x\nmkt*\n>b y\nMKV\n>c\nMKT\n")
    assert (found.reader.duplicate_ids(), found.identical) == (1, 2)


def test_another_molecule_is_one_error_and_everything_is_counted(survey):
    found = survey("".join(f">r{n}\n{'ACGTTGCAAG' * 5}\n" for n in range(3000)))
    (error,) = found.errors
    assert "of the first" in error
    assert (found.reader.read, len(found.rows)) == (3000, 3000)


def test_proteins_for_dna_are_one_error_beside_the_bad_records(survey):
    found = survey(">a\nMKTAYIAKQRQISFVKSHFSRQ\n" * 30, alphabet=DNA)
    assert len(found.errors) == 1
    assert found.reader.problems.kinds == {"letters": 30}


def test_a_source_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    for name, text in {
        "1.fa": ">a\nMK\n",
        "2.fa": "no FASTA\n",
        "3.fa": "",
        "4.fa": ">b\nV\n",
    }.items():
        (tmp_path / name).write_text(text)
    found = survey_of(*(tmp_path / f"{n}.fa" for n in range(1, 5)))
    assert found.records_of == [1, 0, 0, 1]
    assert found.rows == [0, 1]
    first, second = found.errors
    assert "2.fa, line 1: not FASTA" in first
    assert "3.fa is empty" in second


def test_nothing_but_records_that_are_left_out_is_an_error(survey):
    (error,) = survey(">a\n>b\n", empty="skip").errors
    assert "nothing is left to embed" in error
