"""Bad records of every kind: counted, left out or refused together, each with its own line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from common.errors import InputError, UserError
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, ESM2
from producer.input.reader import Reader
from producer.input.source import Source
from producer.submission.request import check_molecule, make_request, reader_of

MIXED = ">ok\nMKTAY\n>none\n>star\nMK\n*A\n>tiny\nMK\n>digit\nM1K\n>good\nMKTAYI\n"


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "in.fa") -> Source:
        path = tmp_path / name
        path.write_text(text)
        return Source(str(path))

    return write


def read(source: Source, **options) -> Reader:
    """Return a reader with the options of ``producer submit``, which has read a source."""
    reader = reader_of(make_request(source, "esm2_t6_8M_UR50D", **options))
    reader.rows = [record.row for record in reader]
    return reader


def test_all_kinds_are_listed_in_one_run(written, tmp_path):
    with pytest.raises(InputError) as caught:
        read(written(MIXED), min_length=3)
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines()[:5] == [
        "in.fa: 4 records cannot be embedded.",
        "  line 3: record 2 ('none') has no sequence.",
        "  line 6: record 3 ('star') has '*' at position 3, which is not one of the model's amino "
        "acids.",
        "  line 7: record 4 ('tiny') has 2 residues, fewer than the min_length of 3.",
        "  line 10: record 5 ('digit') has '1' at position 2, which is not one of the model's "
        "amino acids.",
    ]
    assert "Lower min_length, or set invalid to skip" in str(caught.value)


def test_all_kinds_are_left_out_in_one_run(written):
    reader = read(written(MIXED), min_length=3, invalid="skip")
    assert reader.rows == [0, 5]
    assert (reader.empty, reader.skipped, reader.short, reader.replaced) == (1, 2, 1, 0)


def test_letters_become_x_and_what_has_none_is_left_out(written):
    reader = read(written(MIXED.replace("M1K", "MJK")), min_length=3, invalid="x")
    assert reader.rows == [0, 2, 4, 5]
    assert (reader.empty, reader.skipped, reader.short, reader.replaced) == (1, 0, 1, 2)


def test_a_sign_that_is_no_letter_is_an_error_with_x(written):
    with pytest.raises(InputError, match="record 5"):
        read(written(MIXED), invalid="x")


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"invalid": "skip", "unknown": "x"}, [0, 2]),
        ({"invalid": "x", "unknown": "skip"}, [0]),
        ({"unknown": "skip", "empty": "skip"}, [0]),
        ({"invalid": "skip"}, [0]),
    ],
    ids=["unknown x", "unknown skip", "both", "invalid"],
)
def test_the_option_of_one_kind_overrides(written, options, rows):
    assert read(written(">a\nMK\n>b\n>c\nJ\n"), **options).rows == rows


@pytest.mark.parametrize("options", [{"unknown": "error"}, {"empty": "error"}])
def test_one_kind_may_still_be_an_error(written, options):
    with pytest.raises(InputError):
        read(written(">a\nMK\n>b\n>c\nJ\n"), invalid="skip", **options)


def test_invalid_is_the_same_job_as_the_options_of_each_kind(written):
    def name(**options) -> str:
        return make_request(written(MIXED), "esm2_t6_8M_UR50D", **options).fingerprint()

    assert name(invalid="skip") == name(unknown="skip", empty="skip")
    assert name(invalid="x") == name(unknown="x", empty="skip")
    assert name(invalid="error") == name() == name(min_length=1) == name(molecule="protein")
    assert len({name(), name(min_length=2), name(min_length=3)}) == 3
    assert name(min_length=2) != name(min_length=2, invalid="skip", unknown="error", empty="error")


def test_one_letter_is_enough_for_every_model(written):
    source = written(">a\nA\n")
    for model in ("esm2_t6_8M_UR50D", "dnabert_s"):
        assert [record.residues for record in reader_of(make_request(source, model))] == ["A"]


@pytest.mark.parametrize("molecule", ["dna", "rna"])
def test_a_molecule_that_the_model_is_not_for_is_refused(molecule):
    with pytest.raises(UserError, match="is a model for proteins"):
        check_molecule(molecule, ModelSource.parse("esm2_t6_8M_UR50D"), ESM2)
    check_molecule(molecule, ModelSource.parse("dnabert_s"), DNABERT_S)
    with pytest.raises(UserError, match="set molecule to dna"):
        check_molecule("protein", ModelSource.parse("dnabert_s"), DNABERT_S)


def test_what_a_model_is_for_that_only_workers_see_is_said_by_the_molecule(written):
    dna = written(f">a\n{'ACGTTGCAAG' * 20}\n")
    request = make_request(dna, "/only/there")
    assert (request.alphabet, [record.row for record in reader_of(request)]) == (PROTEIN, [0])
    request = make_request(dna, "/only/there", molecule="rna")
    assert (request.alphabet, request.long, request.form.max_residues) == (DNA, "window", 10_000)
    assert make_request(dna, "/only/there", molecule="protein").alphabet is PROTEIN


# --- lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "line", "position"),
    [
        ("in.fa", ">a\nMK\nMK\n>b\nMK\n\n; c\nMK\nMJ\n", 9, 6),
        ("in.fa", ">a\r\nMK\r\n>b\r\nMK\r\n\r\nMJ\r\n", 6, 4),
        ("in.fq", "@a\nMK\n+\nII\n@b\nMK\n\nMJ\n+\nIIII\n", 8, 4),
        ("in.csv", 'id,sequence\na,MK\nb,"MK\nMK\n\nMJ"\n', 6, 6),
        ("in.csv", 'note,sequence,id\n"x\ny",MK,a\n"x\ny","MK\nMJ",b\n', 6, 4),
        ("in.tsv", "id\tsequence\na\tMK\n\nb\tMKMJ\n", 4, 4),
    ],
    ids=["wrapped", "windows", "fastq", "cell", "cells", "tsv"],
)
def test_the_line_is_that_of_the_letter_alone_and_in_the_list(written, name, text, line, position):
    source = written(text, name)
    with pytest.raises(InputError) as caught:
        read(source)
    shown = f"line {line}: record 2 ('b') has 'J' at position {position}"
    assert shown in str(caught.value)
    assert caught.value.line == line
    with pytest.raises(InputError) as caught:
        read(source, min_length=5)  # a second bad record, so that both are listed
    assert f"\n  {shown}" in str(caught.value)


@given(
    st.lists(st.tuples(st.sampled_from(["MK", "MKJ", "", "M1", "M"]), st.booleans()), min_size=1),
    st.sampled_from(["skip", "x"]),
)
def test_every_record_is_a_row_or_counted_once(tmp_path_factory, records, invalid):
    path: Path = tmp_path_factory.getbasetemp() / "counted.fa"
    lines = [
        f">{n}\n{text}{chr(10) if wrapped else ''}\n" for n, (text, wrapped) in enumerate(records)
    ]
    path.write_text("".join(lines))
    options = {"invalid": invalid, "min_length": 2}
    reader = reader_of(make_request(Source(str(path)), "esm2_t6_8M_UR50D", **options))
    rows = [
        record.row
        for part in [reader.source]
        for _, found in reader.read_part(part)
        for record in found
    ]
    assert reader.read == len(records)
    left_out = reader.skipped + reader.empty + reader.short + reader.problems.count
    assert len(rows) + left_out == len(records)
    assert rows == sorted(set(rows))
