"""Parquet, whole and broken."""

from functools import partial

import pytest

from producer.input.columns import Columns
from tests.cases.case import gz, parquet, read, refused

SEQ = {"columns": Columns("acc", "seq")}


def dictionary() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    return parquet(id=["a"], sequence=pyarrow.array(["MKT"]).dictionary_encode())


def without_rows() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    none = pyarrow.array([], pyarrow.string())
    return parquet(id=none, sequence=none)


def whole() -> bytes:
    return parquet(id=["a", "b", "c"], sequence=["MKT", "GAV", "MM"])


def overwritten() -> bytes:
    """The pages of the file, with other bytes."""
    data = bytearray(whole())
    data[4:60] = b"\xff" * 56
    return bytes(data)


CASES = [
    read("Parquet without a suffix", whole, ("a", "MKT"), ("b", "GAV"), ("c", "MM")),
    read(
        "Parquet with ids that are numbers", partial(parquet, id=[7], sequence=["mk*"]), ("7", "MK")
    ),
    read("Parquet with texts by number", dictionary, ("a", "MKT")),
    read(
        "Parquet whose ids are the sequences",
        partial(parquet, seq=["MKT"]),
        ("MKT", "MKT"),
        options={"columns": Columns("seq", "seq")},
    ),
    read(
        "Parquet without a value, left out",
        partial(parquet, id=["a", "b"], sequence=[None, "MKT"]),
        ("b", "MKT"),
        rows=(1,),
        options={"empty": "skip"},
        counts={"empty": 1},
    ),
    read(
        "Parquet without an id",
        partial(parquet, id=[None, "b"], sequence=["MKT", "GAV"]),
        ("", "MKT"),
        ("b", "GAV"),
    ),
    refused(
        "Parquet without the usual columns",
        partial(parquet, a=["x"], b=["MKT"]),
        "in has no column 'id'. Its columns are 'a', 'b': name the one with the ids by "
        "--id-column (in Python: id_column).",
    ),
    refused(
        "Parquet without the column that was named",
        partial(parquet, acc=["x"]),
        "in has no column 'seq'. Its columns are 'acc': name the one with the sequences "
        "by --sequence-column (in Python: sequence_column).",
        options=SEQ,
    ),
    refused(
        "Parquet with numbers for sequences",
        partial(parquet, id=["x"], sequence=[5]),
        "in: column 'sequence' holds int64, not texts: name the one with the sequences by"
        " --sequence-column (in Python: sequence_column).",
    ),
    refused(
        "Parquet with bytes for sequences",
        partial(parquet, id=["x"], sequence=[b"MK"]),
        "in: column 'sequence' holds binary, not texts: name the one with the sequences "
        "by --sequence-column (in Python: sequence_column).",
    ),
    refused(
        "Parquet with lists for sequences",
        partial(parquet, id=["x"], sequence=[["M", "K"]]),
        "in: column 'sequence' holds list<element: string>, not texts: name the one with "
        "the sequences by --sequence-column (in Python: sequence_column).",
    ),
    refused(
        "Parquet without a value",
        partial(parquet, id=["x", "y"], sequence=["MK", None]),
        "in, row 2: record 2 ('y') has no sequence. Remove it, or set empty to skip "
        "(leave such records out).",
    ),
    refused(
        "Parquet with a number in a later row",
        partial(parquet, id=list("abc"), sequence=["MK", "GA", "M1"]),
        "in, row 3: record 3 ('c') has '1' at position 2, which is not one of the model's"
        " amino acids. Digits are no sequence: are they line numbers, or is it no FASTA? "
        "Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "Parquet with FASTA in a cell",
        partial(parquet, id=["x"], sequence=[">MK"]),
        "in, row 1: '>MK' is not a sequence. Correct it, or name another column by "
        "--sequence-column (in Python: sequence_column).",
    ),
    refused("Parquet without rows", without_rows, "in is empty: it contains no record."),
    refused("Parquet of four bytes", b"PAR1", "in: a damaged Parquet file (...). Is it complete?"),
    refused(
        "Parquet cut short",
        lambda: whole()[:60],
        "t.parquet: a damaged Parquet file (...). Is it complete?",
        name="t.parquet",
    ),
    refused(
        "Parquet without its last byte",
        lambda: whole()[:-1],
        "t.parquet: a damaged Parquet file (...). Is it complete?",
        name="t.parquet",
    ),
    refused(
        "Parquet with damaged pages",
        overwritten,
        "t.parquet, after record 0: cannot be read to its end (...). Is the file "
        "complete? Nothing was queued.",
        name="t.parquet",
    ),
    refused(
        "Parquet inside gzip",
        lambda: gz(whole()),
        "t.parquet.gz: Parquet inside another compression is not read. Unpack it first.",
        name="t.parquet.gz",
    ),
    refused(
        "Arrow, which is no Parquet",
        b"ARROW1\0\0" + bytes(20),
        "t.feather looks like Arrow, which is not read. Save it as Parquet.",
        name="t.feather",
    ),
]
