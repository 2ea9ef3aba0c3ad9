"""The input object of a batch: the records read are those written."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from common.errors import InputError, UserError
from common.job.records import (
    Record,
    decode_batch,
    encode_batch,
    encode_rows,
    first_word,
    with_ids,
)

#: A reader of text sees a new line at \n, \r and \r\n alone, so anything else may be in a header,
#: but a NUL, which HDF5 could not store.
headers = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
sequences = st.text(st.sampled_from(sorted(PROTEIN.letters | DNA.letters)), min_size=1)
records = st.builds(Record, st.integers(0, 2**63 - 1), headers, sequences)


@given(st.lists(records))
def test_records_come_back_as_they_were(records):
    assert decode_batch(encode_batch(records)) == records


@given(st.lists(records | st.builds(Record, st.integers(0, 9), st.just("90% of %d"), sequences)))
def test_records_that_are_encoded_give_the_same_object(records):
    headers = [record.header.encode() for record in records]
    residues = [record.residues.encode() for record in records]
    rows = [record.row for record in records]
    assert encode_rows(rows, headers, residues) == encode_batch(records)


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", ">", " ", "\t", "é"])
def test_a_header_may_hold_what_others_take_for_a_line_end(sign):
    record = Record(7, f"{sign}a{sign}{sign}b{sign}", "MK")
    assert decode_batch(encode_batch([record])) == [record]


def test_an_object_is_fasta_with_the_row_before_the_header():
    data = encode_batch([Record(17, "sp|P69905 Hemoglobin", "MVL"), Record(20, "", "GA")])
    assert data == b">17 sp|P69905 Hemoglobin\nMVL\n>20 \nGA\n"


@given(st.lists(records, max_size=3), records, st.data())
def test_an_object_that_is_cut_within_a_record_is_refused(before, last, data):
    whole, complete = encode_batch([*before, last]), len(encode_batch(before))
    cut = data.draw(st.integers(complete + 1, len(whole) - 1))
    with pytest.raises(ValueError, match=r"cut short|utf-8"):
        decode_batch(whole[:cut])


@pytest.mark.parametrize("data", [b">a b\nMK\n", b">\nMK\n", b"\n\n", b"\x89HDF\n\n"])
def test_an_object_without_row_numbers_is_refused(data):
    with pytest.raises(ValueError, match=r"invalid literal|utf-8"):
        decode_batch(data)


@pytest.mark.parametrize(
    ("header", "word"),
    [("a b c", "a"), ("a\tb", "a"), ("  a b", "a"), ("", ""), (" \t", ""), ("é中/|;", "é中/|;")],
)
def test_the_id_is_the_first_word_of_the_header(header, word):
    assert first_word(header) == Record(0, header, "MK").id == word


# --- sequences of a program ----------------------------------------------------------------------


class Seq:
    """A sequence as Biopython has them: it becomes text, but is none."""

    __module__ = "Bio.Seq"

    def __str__(self) -> str:
        return "MK"


class UndefinedSeq(Seq):
    """A sequence as Biopython reads it from a GenBank file that leaves the letters out."""

    def __str__(self) -> str:
        raise ValueError("Sequence content is undefined")


@dataclass
class SeqRecord:
    """A record as Biopython has them."""

    id: str
    seq: Seq


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["MK", "GA"], [("0", "MK"), ("1", "GA")]),  # two letters are not an id and a sequence
        ({"my protein": "MK"}, [("my protein", "MK")]),
        ({7: "MK"}, [("7", "MK")]),  # of a column of pandas
        ([("a", "MK"), ["b", "GA"]], [("a", "MK"), ("b", "GA")]),
        ([SeqRecord("a", Seq())], [("a", "MK")]),
        ({"b": SeqRecord("a", Seq())}, [("b", "MK")]),
        ({"b": Seq()}, [("b", "MK")]),
        ({}, []),
    ],
)
def test_sequences_have_their_ids(given, expected):
    assert list(with_ids(given)) == expected


@pytest.mark.parametrize(
    "bad", [None, float("nan"), b"MK", 5, ("a", "b", "MK"), "MK\ud800", UndefinedSeq()]
)
def test_an_item_that_is_no_sequence_is_an_error_with_its_place(bad):
    with pytest.raises(InputError, match="Sequence 2") as caught:
        list(with_ids(["MK", bad]))
    assert caught.value.record == 2


def test_a_sequence_that_is_missing_is_an_error_with_its_id():
    with pytest.raises(InputError, match=r"Sequence 1 \('a'\) is not a text, but float nan"):
        list(with_ids({"a": float("nan")}))


@pytest.mark.parametrize("one", ["MKT", b"MKT", PurePosixPath("p.fasta"), 5, None])
def test_what_is_no_list_of_sequences_is_an_error(one):
    with pytest.raises(UserError, match=r"pass \[sequence\]|is not a list or a mapping"):
        list(with_ids(one))
