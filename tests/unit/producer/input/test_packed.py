"""Records that are read many at once: the same as if the reader has each of them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.alphabet import ALPHABETS, DNA, PROTEIN
from common.errors import InputError
from producer.input import packed, reader
from producer.input.duplicates import DuplicateCounter
from producer.input.packed import first_words, has_only, joined, read_packed
from producer.input.pieces import PieceBlocks, Text
from producer.input.reader import Reader
from producer.input.source import Source

SOURCE = Source("p.fasta")

#: What is read, and what was counted.
Outcome = tuple[Any, ...]

headers = st.sampled_from(["a", "b", "c d", "", " e f", "90% of %d %b %%", "l > m"])
odd_headers = st.sampled_from(["g  ", "h\ti", "j\x1f", "é", ">n"])
lines = st.sampled_from(["MKTAYIAKQR", "GEILVKQ", "LLLL" * 30, "MLGATTACA"])
odd_lines = st.sampled_from(
    [
        *("", "mktayl", "MKL*", "*", "MK-TL", "M.KL", "ML1K", "MK TA", " ", ";c", "#c", "J", "é"),
        *("%d", "XBZUO", "ACGTACGT", "GATTACAGATTACAGATTACA"),
    ]
)
options = st.fixed_dictionaries(
    {
        "unknown": st.sampled_from(["error", "skip", "x"]),
        "long": st.sampled_from(["truncate", "error"]),
        "max_residues": st.sampled_from([20, 1022]),
        "gaps": st.sampled_from(["keep", "strip", "error"]),
        "empty": st.sampled_from(["error", "skip"]),
        "min_length": st.sampled_from([1, 8]),
    }
)


ENDS = [*6 * [b""], b"\n", b">z\nMKL", b">\0\nMKL\n", b">y\nM\xffL\n"]


@st.composite
def pieces(draw: st.DrawFn) -> Text:
    """A piece of FASTA, with any newline, which ends in any way."""
    text = draw(st.sampled_from([*9 * [""], "\n \n", "# a comment\n"]))
    # At most one kind is odd, or hardly any records would be read together.
    odd = draw(st.sampled_from(["nothing", "lines", "headers"]))
    some_headers = headers | st.just(draw(odd_headers)) if odd == "headers" else headers
    some_lines = lines | st.just(draw(odd_lines)) if odd == "lines" else lines
    records = st.tuples(some_headers, st.lists(some_lines, min_size=odd != "lines", max_size=4))
    for header, found in draw(st.lists(records, max_size=40)):
        text += f">{header}\n" + "".join(f"{line}\n" for line in found)
    newline = draw(st.sampled_from([*8 * ["\n"], "\r\n", "\r"]))
    data = text.replace("\n", newline).encode()
    data += draw(st.sampled_from(ENDS))
    is_last = draw(st.booleans())
    if not is_last:  # it ends where a block does: before a record
        data = data.rstrip(b"\r\n") + b"\n>"
    return Text("p.fasta", data, len(data), is_last)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several chunks of a small piece; the first records are like all others."""
    monkeypatch.setattr(packed, "CHUNK_BYTES", (300, 80))
    monkeypatch.setattr(reader, "EARLY_RECORDS", 0)


def new_reader(alphabet: str, chosen: dict[str, Any]) -> Reader:
    found = Reader(SOURCE, alphabet=ALPHABETS[alphabet], **chosen)
    found.ids = DuplicateCounter(seed=1)
    return found


def many_at_once(piece: Text, reader: Reader) -> Outcome:
    parts, lines = read_packed(piece, reader)
    found = joined(parts)
    assert found.letters.tolist() == list(map(len, found.sequences))
    assert found.header_letters.tolist() == [len(each.decode()) for each in found.headers]
    records = zip(found.rows.tolist(), found.headers, found.sequences, strict=True)
    return [(row, h.decode(), s.decode()) for row, h, s in records], lines


def one_by_one(piece: Text, reader: Reader) -> Outcome:
    blocks = PieceBlocks(piece)
    return [tuple(record) for block in blocks for record in reader.checked(block)], blocks.lines


def outcome(read: Any, piece: Text, alphabet: str, chosen: dict[str, Any]) -> Outcome:
    used = new_reader(alphabet, chosen)
    try:
        found = read(piece, used)
    except (InputError, UnicodeDecodeError) as error:
        return (type(error) is InputError,)  # where it is, only the whole file tells
    records, lines = found
    # Those before the next piece, if there is one.
    return records, None if piece.is_last else lines, used.findings(), used.ids.recent


@settings(max_examples=400)
@given(pieces(), st.sampled_from(["protein", "protein", "protein", "dna"]), options)
def test_any_records_are_read_many_at_once_as_one_by_one(piece, alphabet, chosen):
    many, one = (outcome(read, piece, alphabet, chosen) for read in (many_at_once, one_by_one))
    assert (many == one) or len(many) == len(one) == 1


def test_records_in_lines_are_read_without_a_look_at_each(monkeypatch):
    monkeypatch.delattr(Reader, "checked")
    piece = Text("p.fasta", b">a b\nMKT\nAYL\n\n> c\nmkl*\n>\nM\nL\nK", 0, is_last=True)
    used = new_reader("protein", {"unknown": "error", "long": "truncate", "max_residues": 9})
    found, lines = many_at_once(piece, used)
    assert found == [(0, "a b", "MKTAYL"), (1, " c", "MKL"), (2, "", "MLK")]
    assert lines == 10


@given(st.binary() | st.text("ACGT").map(str.encode), st.sampled_from([PROTEIN, DNA]))
def test_letters_are_plain_if_nothing_else_is_among_them(letters, alphabet):
    assert has_only(letters, alphabet.encoded) == (not letters.translate(None, alphabet.encoded))


@given(st.lists(st.text("ab >%", max_size=5)))
def test_the_id_of_a_header_is_its_first_word(headers):
    expected = [words[0] if (words := header.split()) else "" for header in headers]
    assert [word.decode() for word in first_words(list(map(str.encode, headers)))] == expected
