"""Several files as one input: rows run on, and every message names its own file."""

from pathlib import Path

import pytest

from common.alphabet import PROTEIN
from common.errors import InputError
from producer.input.reader import Reader
from producer.input.source import Source
from producer.input.sources import Sources, together


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reader_of(*texts: str, **options) -> Reader:
    """Return a reader of files named 1.fa, 2.fa and so on."""
    parts = []
    for number, text in enumerate(texts, start=1):
        Path(f"{number}.fa").write_text(text)
        parts.append(Source(f"{number}.fa"))
    defaults = {"alphabet": PROTEIN, "unknown": "error", "long": "truncate", "max_residues": 1022}
    return Reader(together(parts), **(defaults | options))


def test_rows_run_on_from_file_to_file(folder):
    reader = reader_of(">a\nMKT\n>b\nGAV", ">c\nMML", ">a\nMKV\n")
    assert [(record.row, record.id) for record in reader] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
        (3, "a"),
    ]
    assert reader.records_of == [2, 1, 1]
    assert reader.duplicate_ids() == 1


def test_records_that_are_skipped_count_as_read(folder):
    reader = reader_of(">a\n\n>b\nGAV", ">c\nM1\n", ">d\nMM", empty="skip", unknown="skip")
    assert [record.row for record in reader] == [1, 3]
    assert reader.records_of == [2, 1, 1]


def test_bad_records_of_several_files_are_listed_with_their_files_and_lines(folder):
    with pytest.raises(InputError) as caught:
        list(reader_of(">a\nMKT\n", ">b\nGAV\n>c\nM1\n", ">d\n\nM2\n"))
    assert str(caught.value).splitlines()[:3] == [
        "1.fa and 2 more sources: 2 records cannot be embedded.",
        "  2.fa, line 4: record 2 ('c') has '1' at position 2, which is not one of the model's "
        "amino acids.",
        "  3.fa, line 3: record 1 ('d') has '2' at position 2, which is not one of the model's "
        "amino acids.",
    ]
    assert (caught.value.path, caught.value.line, caught.value.record) == ("2.fa", 4, 2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([">a\nMKT\n", ">b\nM1\n"], "2.fa, line 2: record 1 ('b') has '1'"),
        ([">a\nMKT\n", "MKT\n"], "2.fa, line 1: not FASTA."),
        ([">a\nMKT\n", ""], "2.fa is empty: it contains no record. Leave the file out"),
        ([">a\nMKT\n", "\x1f\x8b"], "2.fa, "),
    ],
    ids=["letter", "format", "empty", "binary"],
)
def test_an_error_names_the_file_that_has_it(folder, texts, message):
    with pytest.raises(InputError) as caught:
        list(reader_of(*texts))
    assert str(caught.value).startswith(message)
    assert caught.value.path == "2.fa"


def test_an_empty_file_can_be_skipped_but_not_all_files(folder):
    assert len(list(reader_of("", ">a\nMKT\n", empty="skip"))) == 1
    with pytest.raises(InputError, match="all files are empty"):
        list(reader_of("", "", empty="skip"))


def test_a_single_file_is_an_input_as_it_always_was(folder):
    Path("a.fa").write_text(">a\nMKT\n")
    assert together([Source("a.fa")]) == Source("a.fa")


def test_the_same_files_are_the_same_input_and_others_are_not(folder):
    for name in ("a.fa", "b.fa", "c.fa"):
        Path(name).write_text(">a\nMKT\n")
    a, b, c = map(Source, ("a.fa", "b.fa", "c.fa"))
    prints = {Sources(parts).fingerprint for parts in ((a, b), (b, a), (a, c), (a, b, c))}
    assert len(prints) == 4
    assert Sources((a, b)).fingerprint == Sources((Source("a.fa"), Source("b.fa"))).fingerprint
    Path("b.fa").write_text(">a\nMKV\n")
    assert Sources((a, Source("b.fa"))).fingerprint not in prints
