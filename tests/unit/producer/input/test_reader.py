"""The reader: for any FASTA file, records in order or one clear message."""

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xopen import xopen

from common.alphabet import ALPHABETS, DNA, PROTEIN, Alphabet
from common.errors import UserError
from common.job.records import Record
from producer.input.blocks import blocks, split_records, tidied
from producer.input.reader import Reader
from producer.input.source import Source


def zstd(data: bytes) -> bytes:
    buffer = BytesIO()
    with xopen(buffer, "wb", format="zst", threads=0) as file:
        file.write(data)
    return buffer.getvalue()


#: Compressors that write no time stamp, since test names contain the data.
gz = partial(gzip.compress, mtime=0)

COMPRESSORS = {"gz": gz, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def reader_of(source: str | Path, **options) -> Reader:
    defaults = {
        "alphabet": PROTEIN,
        "unknown": "error",
        "long": "truncate",
        "max_residues": 1022,
    }
    return Reader(Source(str(source)), **(defaults | options))


class Folder:
    """A folder in which FASTA is written and read back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, data: bytes | str, name: str = "in.fa") -> Path:
        path = self.path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def read(self, data: bytes | str, name: str = "in.fa", **options) -> list[Record]:
        return list(reader_of(self.write(data, name), **options))

    def reader(self, data: bytes | str, **options) -> Reader:
        """Return a reader that has read everything."""
        reader = reader_of(self.write(data), **options)
        list(reader)
        return reader

    def refusal(self, data: bytes | str, name: str = "in.fa", **options) -> str:
        """Return the message of refused data, without the file's folder."""
        with pytest.raises(UserError) as caught:
            self.read(data, name, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{self.path}/{name}")
        return message.removeprefix(f"{self.path}/")


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def sequences(records: list[Record]) -> list[str]:
    return [record.residues for record in records]


# --- what is read -------------------------------------------------------------------------------


def test_records_have_their_row_their_whole_header_and_their_joined_lines(folder):
    assert folder.read(">a first\nMK\nV\n>b\nGA\n") == [
        Record(0, "a first", "MKV"),
        Record(1, "b", "GA"),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_any_newline_and_none_at_the_end_will_do(folder, newline, end):
    text = (">a b\nMK\n\nVL\n>c\nGA" + end).replace("\n", newline)
    assert folder.read(text) == [Record(0, "a b", "MKVL"), Record(1, "c", "GA")]


def test_blank_lines_before_the_first_record_are_skipped(folder):
    assert sequences(folder.read("\n \n>a\nMK\n")) == ["MK"]


def test_lower_case_is_accepted(folder):
    assert sequences(folder.read(">a\nmkV\n>b\nxbz\n")) == ["MKV", "XBZ"]


def test_stars_at_the_end_are_dropped(folder):
    assert sequences(folder.read(">a\nMKV*\n>b\nmk**\n")) == ["MKV", "MK"]


def test_a_final_star_does_not_make_a_record_too_long(folder):
    assert folder.reader(">a\nMKV*\n", max_residues=3).long_records == 0


@pytest.mark.parametrize(
    ("alphabet", "letter"),
    [(alphabet, letter) for alphabet in (PROTEIN, DNA) for letter in sorted(alphabet.letters)],
    ids=lambda value: value.name if isinstance(value, Alphabet) else value,
)
def test_every_letter_of_the_alphabet_is_accepted_in_either_case(folder, alphabet, letter):
    text = f">a\nA{letter}A\n>b\na{letter.lower()}a\n"
    assert sequences(folder.read(text, alphabet=alphabet)) == [f"A{letter}A"] * 2


@pytest.mark.parametrize(
    "header",
    [
        "sp|P69905|HBA_HUMAN",
        "a/b/../c",
        "a b\tc  d",
        "protéine 中文 🧬",
        "i" * 10_240,
        "",
        ">a",
        "a\x0bb\x0cc\x1cd\x85e\u2028f",
    ],
    ids=["plain", "slashes", "blanks", "beyond ASCII", "10 KB", "empty", "angle", "line-like"],
)
def test_headers_are_kept_as_they_are(folder, header):
    assert folder.read(f">{header}\nMK\n>next\nGA\n") == [
        Record(0, header, "MK"),
        Record(1, "next", "GA"),
    ]


headers = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=30
).map(str.strip)


@st.composite
def contents(draw: st.DrawFn) -> tuple[Alphabet, list[tuple[str, str]]]:
    """An alphabet, and headers with sequences that are written in it."""
    alphabet = draw(st.sampled_from([PROTEIN, DNA]))
    letters = sorted(alphabet.letters.difference("-."))
    sequence = st.text(st.sampled_from(letters), min_size=1, max_size=30)
    return alphabet, draw(st.lists(st.tuples(headers, sequence), min_size=1, max_size=10))


@given(contents(), st.sampled_from([7, 60]))
def test_what_was_written_is_what_is_read(tmp_path_factory, contents, width):
    alphabet, pairs = contents
    lines = []
    for header, sequence in pairs:
        lines += [f">{header}", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    path = tmp_path_factory.getbasetemp() / "written.fa"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    reader = reader_of(path, alphabet=alphabet)
    assert [(record.header, record.residues) for record in reader] == pairs


# --- ids ----------------------------------------------------------------------------------------


def test_records_with_an_earlier_id_are_kept_and_counted(folder):
    reader = reader_of(folder.write(">a x\nMK\n>b\nMK\n>a y\nGA\n>a\nVL\n"))
    assert [record.id for record in reader] == ["a", "b", "a", "a"]
    assert reader.duplicate_ids() == 2


def test_headers_without_text_are_one_id(folder):
    assert folder.reader(">\nMK\n> \nGA\n").duplicate_ids() == 1


# --- nothing to read ----------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.fa: no such file \(looked in .+\)"):
        Source(str(tmp_path / "none.fa")).check()


def test_a_file_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(UserError, match=r"none\.fa: cannot be read \(No such file"):
        list(reader_of(tmp_path / "none.fa"))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \n\t\r\n", b" ", gz(b"")])
def test_a_file_without_a_record_is_empty(folder, data):
    assert folder.refusal(data) == "in.fa is empty: it contains no record."


# --- not FASTA ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line", "shown"),
    [
        ("Dear reader,\n\nno FASTA.\n", 1, "Dear reader,"),
        ("\n\nid,sequence\n1,MKV\n", 3, "id,sequence"),
        ("MKV\n>a\nMKV\n", 1, "MKV"),
        ("%PDF-1.7\n", 1, "%PDF-1.7"),
    ],
    ids=["text", "csv", "no header", "PDF"],
)
def test_text_that_is_not_fasta_is_shown_with_its_line(folder, data, line, shown):
    message = folder.refusal(data)
    assert message.startswith(f"in.fa, line {line}: not FASTA.")
    assert f"but got '{shown}'" in message


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"\xff" * 5000])
def test_a_binary_file_is_neither_fasta_nor_compressed(folder, data):
    message = folder.refusal(data)
    assert message.startswith(("in.fa: neither text nor", "in.fa, line 1: byte 0xff is not text"))


def test_the_line_of_a_header_in_another_encoding_is_named(folder):
    message = folder.refusal(">a\nMK\n>prot\xe9ine\nMK\n".encode("latin-1"))
    assert message.startswith("in.fa, line 3: ")
    assert "byte 0xe9 is not text in UTF-8" in message


# --- records without sequence -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line", "record", "header"),
    [
        (">a b\n>c\nMK\n", 1, 1, "a b"),
        (">a\nM\nK\n>b\n\n>c\nMK\n", 4, 2, "b"),
        (">a\nMK\n>b\n", 3, 2, "b"),
        (">a\nMK\n>b", 3, 2, "b"),
        ("\n>a\nMK\n >b\n>c\nMK\n", 4, 2, "b"),
        (">a\nMK\n>b\n*\n", 3, 2, "b"),
        (">a\nMK\n>b\n-.\n--*\n", 3, 2, "b"),
        (">a\nMK\n>b\n.\n", 3, 2, "b"),
        (">a\nMK\n>b\n;MK\n \n", 3, 2, "b"),
    ],
    ids=[
        *("first", "middle", "last", "last without newline", "indented", "only a star"),
        *("only gaps", "only a point", "only a comment"),
    ],
)
def test_a_record_without_sequence_is_named(folder, data, line, record, header):
    expected = f"in.fa, line {line}: record {record} ({header!r}) has no sequence. "
    advice = "Remove it, or set empty to skip (leave such records out)."
    for gaps in ("keep", "strip", "error"):
        assert folder.refusal(data, gaps=gaps) == expected + advice


def test_records_without_sequence_can_be_left_out_and_rows_stay_positions(folder):
    reader = reader_of(folder.write(">a\n>b\nMK\n>c\n--\n>d\nGA\n>e\n"), empty="skip")
    assert list(reader) == [Record(1, "b", "MK"), Record(3, "d", "GA")]
    assert (reader.empty, reader.skipped) == (3, 0)


def test_a_file_with_nothing_but_empty_records_is_refused(folder):
    assert folder.refusal(">a\n>b\n", empty="skip") == (
        "in.fa: nothing is left to embed: all records are left out (2 without a sequence). Is it "
        "the right input?"
    )


def test_a_long_id_is_shortened_in_messages(folder):
    message = folder.refusal(f">{'i' * 10_240}\n>b\nMK\n")
    assert f"record 1 ('{'i' * 60}…') has no sequence" in message


def test_a_header_that_hdf5_cannot_store_is_refused(folder):
    message = folder.refusal(">a\nMK\n>b\0c\nMK\n")
    assert message == (
        r"in.fa, line 3: record 2 ('b\x00c') has a NUL in its header. The file may be damaged."
    )


# --- letters outside the alphabet ---------------------------------------------------------------


@pytest.mark.parametrize("letter", ["J", "j", "*", "?", "é", "ß", "\u017f", "中"])
def test_a_letter_outside_the_alphabet_is_shown_with_its_place(folder, letter):
    message = folder.refusal(f">a\nMK\n>b some words\nMKV\nm{letter}V\n>c\nMK\n")
    assert message == (
        f"in.fa, line 5: record 2 ('b some words') has {letter!r} at position 5, which is not "
        "one of the model's amino acids. Fix it, or set unknown to x (embed it as X) or to "
        "skip (leave such records out)."
    )


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_lines_are_those_of_the_decompressed_file(folder, compress):
    assert folder.refusal(compress(b">a\nMK\n>b\nMJ\n")).startswith("in.fa, line 4: record 2 ('b')")


@pytest.mark.parametrize("sign", ["1", "²", "\x00", "|", "=", "~", "\u200b"])
@pytest.mark.parametrize("unknown", ["error", "x"])
def test_a_sign_that_stands_for_no_letter_is_not_offered_to_be_embedded(folder, sign, unknown):
    message = folder.refusal(f">a\nMK\n>b\nKK\nM{sign}K\n>c\nMK\n", unknown=unknown)
    assert message.startswith(
        f"in.fa, line 5: record 2 ('b') has {sign!r} at position 4, which is not one of the "
        "model's amino acids. "
    )
    assert message.endswith("Fix it, or set unknown to skip (leave such records out).")


def test_digits_are_said_to_be_line_numbers_or_no_fasta(folder):
    message = folder.refusal(">a\n        1 mktay iakqr\n       11 mk\n")
    assert message.startswith("in.fa, line 2: record 1 ('a') has '1' at position 1, ")
    assert "Digits are no sequence: are they line numbers, or is it no FASTA?" in message


def test_a_digit_after_an_unknown_letter_is_what_is_shown_if_letters_become_x(folder):
    message = folder.refusal(">a\nMJ\nK1\n", unknown="x")
    assert message.startswith("in.fa, line 3: record 1 ('a') has '1' at position 4")


# --- several bad records ------------------------------------------------------------------------


def test_all_bad_records_are_listed_each_with_the_line_of_its_letter(folder):
    with pytest.raises(UserError) as caught:
        folder.read(
            ">a\nMK\nMJ\n>b\nMK\n>c\n>d\nM1\n>e\0\nMK\n>f\nMMMMK\n", long="error", max_residues=4
        )
    name = f"{folder.path}/in.fa"
    strange = "which is not one of the model's amino acids"
    assert str(caught.value).splitlines() == [
        f"{name}: 5 records cannot be embedded.",
        f"  line 3: record 1 ('a') has 'J' at position 4, {strange}.",
        "  line 6: record 3 ('c') has no sequence.",
        f"  line 8: record 4 ('d') has '1' at position 2, {strange}.",
        r"  line 9: record 5 ('e\x00') has a NUL in its header.",
        "  line 11: record 6 ('f') has 5 residues, more than the limit of 4.",
        "To leave all such records out, set invalid to skip. By kind:",
        "Fix it, or set unknown to x (embed it as X) or to skip (leave such records out).",
        "Remove it, or set empty to skip (leave such records out).",
        "Digits are no sequence: are they line numbers, or is it no FASTA? Fix it, or set unknown "
        "to skip (leave such records out).",
        "The file may be damaged.",
        "Raise max_residues, or set long to truncate or window.",
    ]
    assert (caught.value.path, caught.value.line, caught.value.record) == (name, 3, 1)


def test_twenty_bad_records_are_listed_and_the_others_counted(folder):
    with pytest.raises(UserError) as caught:
        folder.read(">a\nMJ\n>b\nMK\n" * 3000)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(": 3,000 records cannot be embedded.")
    assert lines[20].startswith("  line 78: record 39 ('a') has 'J'")
    assert lines[21] == "  … and 2,980 more."
    assert len(lines) == 23


def test_after_a_bad_record_none_is_given_out(folder):
    given, many = [], ">a\nMK\n" * 20_000
    with pytest.raises(UserError):
        given.extend(reader_of(folder.write(f">b\nMJ\n{many}")))
    assert given == []


# --- what is written between the letters ---------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ">a\nMKT AYI\nAK QR\n>b\nGA\n",
        ">a\nMKTAYI\t\n\xa0AKQR\x0c \n>b\nGA\n",
        ">a\n; a comment > ;\nMKTAYI\n;another\n  ; and one\nAKQR\n# more\n>b\nGA\n;",
        ";first\n#MK\n\n ;x\n>a\nMKTAYI\nAKQR\n;x\n>b\nGA\n",
        "\ufeff>a\nMKTAYIAKQR\n>b\nGA\n",
        ">a\nMKTAYIAKQR\n\ufeff>b\nGA\n",
        "\ufeff\n;x\n \ufeff>a\nMKTAYIAKQR\n\t>b\nGA\n",
        ">a\rMKTAYI\rAKQR\r>b\rGA\r",
        ">a\r\n\r\nMKTAYI \r\nAKQR\r\n>b\r\nGA",
    ],
    ids=[
        *(
            "blanks",
            "other white space",
            "comments",
            "comments before",
            "BOM",
            "two files with BOM",
        ),
        *("all before a header", "old Mac", "Windows"),
    ],
)
def test_what_is_no_letter_is_dropped(folder, text):
    assert folder.read(text) == [Record(0, "a", "MKTAYIAKQR"), Record(1, "b", "GA")]


def test_lines_are_counted_with_comments_blank_lines_and_every_kind_of_newline(folder):
    for newline in ("\n", "\r\n", "\r"):
        text = "\n;x\n>a\n;y\n\nMK\n;z\n >b\nM K\nV J\n".replace("\n", newline)
        assert folder.refusal(text).startswith(
            "in.fa, line 10: record 2 ('b') has 'J' at position 4"
        )


def test_the_line_of_a_header_in_another_encoding_is_named_after_many_records(folder):
    data = b">a\nMK\r\nGA\n" * 50_000 + b">b\nMK\n>\xe9\nMK\n"
    assert folder.refusal(data).startswith("in.fa, line 150003: byte 0xe9 is not")


def test_text_in_utf_16_is_named(folder):
    for encoding in ("utf-16-le", "utf-16-be"):
        message = folder.refusal("\ufeff>a\r\nMK\r\n".encode(encoding))
        assert message.startswith("in.fa: its text is UTF-16, as some editors write it. Save it as")


class Pieces(BytesIO):
    """A file that is read in pieces."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__()
        self.pieces = [piece.encode() for piece in pieces if piece]

    def read1(self, _size: int | None = -1) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@given(st.text(st.sampled_from("M> \n;#\ufeff"), max_size=60), st.integers(1, 7))
def test_any_text_is_cut_into_the_same_records_wherever_reading_stops(text, size):
    def read(pieces: list[str]) -> list[str] | str:
        try:
            found = [tidied(block.text) for block in blocks(Pieces(pieces), "in")]
        except UserError as error:
            return str(error)
        return [piece.strip() for text in found for piece in split_records(text)]

    assert read([text[i : i + size] for i in range(0, len(text), size)]) == read([text])


# --- stops and gaps ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("MK.", "MK"),
        ("mk*", "MK"),
        ("MK.*", "MK"),
        ("MK*.", "MK"),
        ("MK..", "MK.."),
        ("M-K--.", "M-K--."),
        ("MK.\n", "MK"),
    ],
)
def test_a_point_at_the_end_is_a_stop_and_several_are_gaps(folder, written, read):
    assert sequences(folder.read(f">a\n{written}\n")) == [read]


GAPPED = ">a\nM--K..V\n>b\nMKV\n>c\n-mk-*\n"


def test_gaps_are_kept_and_counted(folder):
    reader = reader_of(folder.write(GAPPED))
    assert sequences(list(reader)) == ["M--K..V", "MKV", "-MK-"]
    assert (reader.gapped, reader.stripped) == (2, 0)


@pytest.mark.parametrize("alphabet", [PROTEIN, DNA], ids=["protein", "dna"])
def test_gaps_can_be_removed_and_are_counted(folder, alphabet):
    text = GAPPED.replace("K", "A").replace("k", "a").replace("M", "C").replace("m", "c")
    reader = reader_of(folder.write(text), gaps="strip", alphabet=alphabet)
    assert sequences(list(reader)) == ["CAV", "CAV", "CA"]
    assert (reader.gapped, reader.stripped) == (0, 2)


def test_gaps_can_be_an_error_that_says_where_and_what_to_do(folder):
    assert folder.refusal(">a\nMK\n>b\nMK\nV-K\n", gaps="error") == (
        "in.fa, line 5: record 2 ('b') has '-' at position 4, which is a gap. Set gaps to strip "
        "(remove them) or to keep (embed them as the model's tokens of gaps)."
    )
    message = folder.refusal(">a\nA.C\n", gaps="error", alphabet=DNA)
    assert message.endswith("which is a gap. Set gaps to strip (remove them).")


@pytest.mark.parametrize("unknown", ["x", "skip"])
def test_gaps_that_are_an_error_are_one_whatever_unknown_says(folder, unknown):
    for alphabet in (PROTEIN, DNA):
        message = folder.refusal(">a\nAC-C\n", gaps="error", unknown=unknown, alphabet=alphabet)
        assert "which is a gap" in message


def test_a_position_is_that_in_the_record_as_it_was_given_with_its_gaps(folder):
    message = folder.refusal(">a\nM--K\n.. J\n", gaps="strip")
    assert message.startswith("in.fa, line 3: record 1 ('a') has 'J' at position 7")


def test_a_record_is_as_long_as_it_is_without_gaps_if_they_are_removed(folder):
    assert folder.reader(">a\nM--KV\n", gaps="strip", max_residues=3).long_records == 0
    assert folder.reader(">a\nM--KV\n", max_residues=3).long_records == 1


def test_gaps_of_dna_are_letters_that_its_model_does_not_have(folder):
    message = folder.refusal(">a\nAC-GT\n", alphabet=DNA)
    assert message.startswith("in.fa, line 2: record 1 ('a') has '-' at position 3, which is not")
    assert "Gaps are removed if you set gaps to strip." in message


def test_unknown_letters_can_become_x(folder):
    reader = reader_of(folder.write(">a\nMK\n>b\nmJ*éV*\n>c\n?\n"), unknown="x")
    assert list(reader) == [Record(0, "a", "MK"), Record(1, "b", "MXXXV"), Record(2, "c", "X")]
    assert (reader.replaced, reader.skipped) == (2, 0)


def test_records_with_unknown_letters_can_be_left_out_and_rows_stay_positions(folder):
    reader = reader_of(folder.write(">a\nM1\n>b\nMK\n>c\nMJ\n>b\nGA\n>c\n!\n"), unknown="skip")
    assert list(reader) == [Record(1, "b", "MK"), Record(3, "b", "GA")]
    assert (reader.replaced, reader.skipped) == (0, 3)
    assert reader.duplicate_ids() == 1


def test_a_file_with_nothing_but_skipped_records_is_refused(folder):
    message = folder.refusal(">a\nM1\n>b\nMJ\n", unknown="skip")
    assert message == (
        "in.fa: nothing is left to embed: all records are left out (2 with unknown letters). Is it "
        "the right input?"
    )


@pytest.mark.parametrize("unknown", ["x", "skip"])
def test_a_record_without_sequence_is_an_error_whatever_unknown_says(folder, unknown):
    assert "has no sequence" in folder.refusal(">a\nMK\n>b\n", unknown=unknown)


# --- long records -------------------------------------------------------------------------------


def test_long_records_are_counted_and_left_whole_for_the_worker_to_cut(folder):
    reader = reader_of(folder.write(">a\nMKVL\n>b\nMKVLG\n>c\nMKVLGA\n"), max_residues=4)
    assert sequences(list(reader)) == ["MKVL", "MKVLG", "MKVLGA"]
    assert reader.long_records == 2


def test_long_records_for_windows_are_counted_and_left_whole_too(folder):
    reader = reader_of(
        folder.write(">a\nACGT\n>b\nACGTACGTAC\n"), alphabet=DNA, long="window", max_residues=4
    )
    assert sequences(list(reader)) == ["ACGT", "ACGTACGTAC"]
    assert reader.long_records == 1


def test_a_long_record_that_is_skipped_is_not_counted_as_long(folder):
    reader = folder.reader(">a\nMKVLGA1\n>b\nMK\n", unknown="skip", max_residues=4)
    assert (reader.long_records, reader.skipped) == (0, 1)


def test_long_records_can_be_an_error(folder):
    data = f">a\nMK\n>b x\n{'MK' * 750}\n"
    for end in ("", "*"):
        assert folder.refusal(data.strip() + end, long="error") == (
            "in.fa, line 3: record 2 ('b x') has 1,500 residues, more than the limit of 1,022. "
            "Raise max_residues, or set long to truncate or window."
        )


def test_a_long_record_of_dna_is_said_to_have_so_many_bases(folder):
    message = folder.refusal(f">a\n{'ACGT' * 500}\n", alphabet=DNA, long="error")
    assert "record 1 ('a') has 2,000 bases, more than the limit of 1,022." in message


# --- DNA ----------------------------------------------------------------------------------------


def test_alphabets_are_those_of_esm_2_and_of_iupac():
    assert "".join(sorted(PROTEIN.letters)) == "-.ABCDEFGHIKLMNOPQRSTUVWXYZ"
    assert "".join(sorted(DNA.letters)) == "ABCDGHKMNRSTVWY"
    assert ALPHABETS == {"protein": PROTEIN, "dna": DNA}
    assert all(alphabet.unknown in alphabet.letters for alphabet in ALPHABETS.values())


def test_dna_may_be_in_lower_case_as_soft_masked_genomes_are(folder):
    assert sequences(folder.read(">a\nACGTnnryacgt\n", alphabet=DNA)) == ["ACGTNNRYACGT"]


def test_uracil_is_read_as_thymine_and_counted(folder):
    reader = reader_of(folder.write(">a\nACGT\n>b some words\nACG\nuACG\n>c\nUU\n"), alphabet=DNA)
    assert sequences(list(reader)) == ["ACGT", "ACGTACG", "TT"]
    assert (reader.rna, reader.replaced) == (2, 0)


@pytest.mark.parametrize("letter", ["-", ".", "X", "*A", "1", "é"])
def test_what_is_no_base_is_an_error_without_talk_of_proteins(folder, letter):
    message = folder.refusal(f">a\nACG{letter}ACGT\n", alphabet=DNA)
    assert f"has {letter[0]!r} at position 4, which is not one of the model's bases." in message
    assert "protein" not in message


@pytest.mark.parametrize("protein", ["MKTAYIAKQR", "mlsdedfkavf", "MVLSPADKTN*"])
def test_a_protein_given_as_dna_is_said_to_look_like_one(folder, protein):
    message = folder.refusal(f">a\n{protein}\n", alphabet=DNA)
    assert "It looks like a protein: give a protein model. Fix it" in message


def test_words_given_as_dna_do_not_look_like_a_protein(folder):
    assert "protein" not in folder.refusal(">a\nfile not found!\n", alphabet=DNA)


def test_unknown_bases_can_become_n(folder):
    reader = reader_of(folder.write(">a\nACGX\n>b\nac-gt\n>c\nACGT\n"), alphabet=DNA, unknown="x")
    assert sequences(list(reader)) == ["ACGN", "ACNGT", "ACGT"]
    assert (reader.replaced, reader.skipped, reader.gapped) == (2, 0, 0)


def test_records_with_unknown_bases_can_be_left_out(folder):
    reader = reader_of(folder.write(">a\nACGX\n>b\nACGT\n"), alphabet=DNA, unknown="skip")
    assert list(reader) == [Record(1, "b", "ACGT")]
    assert (reader.replaced, reader.skipped) == (0, 1)


@pytest.mark.parametrize(
    "data",
    [
        *(">a\nACGT\n", ">a\nacgtn\n>b\nNNNN\n", ">a\n" + "ACGT\n" * 1000),
        *(">a\nacguuacg\n", ">a\nAC-GT..T\n", ">a\nACGTTGCARYACGTTGCA\n"),
    ],
    ids=["ACGT", "lower case", "long", "RNA", "gaps", "codes for several bases"],
)
def test_dna_given_as_protein_is_noticed(folder, data):
    assert folder.reader(data, molecule="protein").looks_like_dna


@pytest.mark.parametrize("data", [">a\nMKTAYIAKQR\n", ">a\nACGT\n>b\nMKTAYIAKQR\n", ">a\nACGR\n"])
def test_proteins_are_not_taken_for_dna(folder, data):
    assert not folder.reader(data).looks_like_dna


def test_dna_given_as_dna_is_what_it_should_be(folder):
    assert not folder.reader(">a\nACGT\n", alphabet=DNA).looks_like_dna


def test_dna_is_noticed_wherever_it_is_in_the_input(folder):
    many = "".join(f">{row}\n{'ACGT' * 5}\n" for row in range(100))
    protein = ">protein\nMKTAYIAKQR\n"
    for data in (many + protein, protein + many):
        reader = folder.reader(data, molecule="protein")
        assert (reader.looks_like_dna, reader.like_dna) == (True, 100)
    few = folder.reader(protein * 10_000 + f">dna\n{'acgtn' * 4}\n" + protein * 2)
    assert (few.looks_like_dna, few.like_dna) == (False, 1)


def test_a_short_peptide_among_others_is_not_taken_for_dna(folder):
    assert folder.reader(">a\nGANGTC\n>b\nMKTAYIAKQR\n").like_dna == 0


# --- compressed files ---------------------------------------------------------------------------

#: Data so random that half of the compressed bytes have half of the records.
BODY = b"".join(
    b">r%d\n%s\n" % (i, os.urandom(150).hex().translate(str.maketrans("0b", "LM")).encode())
    for i in range(500)
)


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("name", ["in.fa", "in.fa.{}", "in.txt.gz", "in.xz"])
def test_compressed_files_are_known_by_their_content_whatever_their_name(folder, suffix, name):
    data = COMPRESSORS[suffix](b">a\nMK\n>b\nGA\n")
    assert sequences(folder.read(data, name.format(suffix))) == ["MK", "GA"]


def test_plain_fasta_may_have_the_name_of_a_compressed_file(folder):
    assert sequences(folder.read(">a\nMK\n", "in.fa.gz")) == ["MK"]


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_parts_that_were_compressed_one_by_one_are_read_on(folder, compress):
    data = compress(b">a\nMK\n") + compress(b">b\nGA\n")
    assert sequences(folder.read(data)) == ["MK", "GA"]


def drop_last_byte(data: bytes) -> bytes:
    return data[:-1]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def start(data: bytes) -> bytes:
    return data[:10]


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("cut", [drop_last_byte, half, start])
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_a_cut_compressed_file_is_said_to_be_incomplete(
    folder, suffix: str, cut: Callable[[bytes], bytes], named: bool
):
    name = f"in.fa.{suffix}" if named else "in.fa"
    data = cut(COMPRESSORS[suffix](BODY))
    message = folder.refusal(data, name, unknown="x")
    assert message.startswith(f"{name}, after record ")
    assert "cannot be read to its end" in message
    assert "Is the file complete? Nothing was queued." in message


def test_a_cut_file_says_how_far_it_was_read(folder):
    message = folder.refusal(half(gz(BODY)), unknown="x")
    records = int(message.removeprefix("in.fa, after record ").split(":")[0])
    assert 100 < records < 400


@pytest.mark.parametrize(
    "data",
    [gz(BODY)[:-8] + b"\0" * 8, zstd(BODY) + b"what is this?"],
    ids=["wrong checksum", "zst and rubbish"],
)
def test_a_damaged_compressed_file_is_refused(folder, data):
    message = folder.refusal(data, "in.fa.gz", unknown="x")
    assert "cannot be read to its end" in message


# --- standard input -----------------------------------------------------------------------------


@pytest.fixture
def standard_input(monkeypatch):
    """Return a function that writes to standard input, a pipe that cannot be rewound."""

    def feed(data: bytes) -> None:
        end, start = os.pipe()
        os.write(start, data)
        os.close(start)
        monkeypatch.setattr(sys, "stdin", os.fdopen(end))

    yield feed
    sys.stdin.close()


@pytest.mark.parametrize("compress", [bytes, *COMPRESSORS.values()], ids=["plain", *COMPRESSORS])
def test_standard_input_may_be_compressed_too(standard_input, compress):
    standard_input(compress(b">a\nMK\n>b\nGA\n"))
    assert sequences(list(reader_of("-"))) == ["MK", "GA"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input is empty"),
        (b"no FASTA", "standard input, line 1: not FASTA"),
        (b">a\nMK\n>b\nMJ\n", r"standard input, line 4: record 2 \('b'\) has 'J' at position 2"),
        (b">a\nMK\n>b\xe9\nMK\n", "standard input, line 3: byte 0xe9 is not"),
        (half(gz(BODY)), r"standard input, after record \d+: cannot be read to its end"),
    ],
)
def test_messages_name_standard_input(standard_input, data, message):
    standard_input(data)
    with pytest.raises(UserError, match=f"^{message}"):
        list(reader_of("-", unknown="error" if data.startswith(b">") else "x"))
